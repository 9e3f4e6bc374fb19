"""From a dataset's own layout to one shape: question, reasoning, answer.

Called by `stage`. Layouts: `columns` (a column per role), `alpaca` (instruction, input, output),
`sharegpt` and `messages` (a list of turns, read by `conversations`).
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thinktune.schema.catalog import ColumnMap, Format
from thinktune.schema.errors import DataInvalid, near_misses
from thinktune.tasks.prep.conversations import (
    CONVERSATIONAL,
    is_conversation,
    one_reasoning,
    read_conversation,
)
from thinktune.tasks.prep.readers import CONVERSATION_COLUMNS, Row
from thinktune.text.conversation import Exchange, Reason, Turn, Unusable

HEAD_ROWS = 100
"""Rows by which the layout is told and mapped columns are looked for: a row of JSON may lack any
column."""
OPTIONAL_ROLES = ("reasoning", "summary", "system", "options", "id")
"""Roles that a column of the same name plays in a user's own file, unless it plays another."""
ID_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Exchange):
    """One row, whatever its layout was."""

    id: str
    row: Row
    """The row as it came: filters and balance read other columns of it."""


def detect_format(rows: Sequence[Row], columns: ColumnMap) -> Format:
    """The layout of a user's own file, by its first rows: the shape of a column's values comes
    before its name, as a `conversation` may be a number."""
    if columns.conversation is not None:
        return "messages"
    for name in CONVERSATION_COLUMNS:
        if any(is_conversation(row.get(name)) for row in rows):
            return "sharegpt" if name == "conversations" else "messages"
    known = {name for row in rows for name in row}
    if {"instruction", "output"} <= known:
        return "alpaca"
    if {"question", "answer"} <= known or not known & {"messages", "conversations"}:
        return "columns"
    return "messages" if "messages" in known else "sharegpt"


def check_columns(rows: Sequence[Row], layout: Format, columns: ColumnMap, place: str) -> None:
    """Fails early when none of the first rows has a column that the mapping names."""
    needed = {role: name for role, name in columns.model_dump().items() if name is not None}
    if layout in CONVERSATIONAL:
        needed.setdefault("conversation", _conversation_column(rows, layout))
        for role in ("question", "reasoning", "answer"):  # the turns hold them
            needed.pop(role, None)
    else:
        needed["question"], needed["answer"] = _asked_and_answered(layout, columns)
        needed.pop("conversation", None)
    known = {str(name) for row in rows for name in row}
    for role, name in needed.items():
        if name not in known:
            fault = f"no column '{name}', which plays the role '{role}'"
            raise DataInvalid(place, fault, f"set data.columns.{role}; {near_misses(name, known)}")


def completed(
    rows: Sequence[Row], layout: Format, columns: ColumnMap, *, own_file: bool
) -> ColumnMap:
    """The mapping with what need not be said. A name that is filled in may be missing: the role is
    then empty."""
    given = {role: name for role, name in columns.model_dump().items() if name is not None}
    roles: tuple[str, ...] = OPTIONAL_ROLES if own_file else ()
    added: dict[str, str] = {}
    if layout in CONVERSATIONAL:
        roles = ("system",)
        added["conversation"] = _conversation_column(rows, layout)
    added |= {role: role for role in roles if role not in given.values()}
    return columns.model_copy(update={**added, **given})


def to_example(row: Row, layout: Format, columns: ColumnMap) -> Example:
    """One row in our shape. Raises Unusable."""
    if layout in CONVERSATIONAL:
        name = columns.conversation or _conversation_column([row], layout)
        said = read_conversation(_present(row, name))
        question = said.question
        reasoning = said.reasoning
        answer = said.answer
        system = said.system
        before = said.before
    else:
        asked, answered = _asked_and_answered(layout, columns)
        question = _text(_present(row, asked))
        more = _text(row.get("input")) if layout == "alpaca" else ""
        question = f"{question}\n\n{more}" if more else question
        beside = _optional(row, columns.reasoning) or ""
        reasoning, answer = one_reasoning([beside], _text(_present(row, answered)))
        system = None
        before = ()
    question = question.strip()
    answer = answer.strip()
    if not question:
        raise Unusable(Reason("empty question"))
    if not answer:
        raise Unusable(Reason("empty answer"))
    options = _options(row.get(columns.options)) if columns.options else None
    return Example(
        id=_optional(row, columns.id) or _key(before, question, options)[:ID_CHARACTERS],
        question=question,
        answer=answer,
        reasoning=reasoning,
        summary=_optional(row, columns.summary),
        system=system or _optional(row, columns.system),
        options=options,
        before=before,
        row=row,
    )


def normalized(question: str) -> str:
    """What makes two questions the same: case, spacing, spellings of one character and the mark at
    the end aside. Other marks stay: `3 + 4` is not `3 - 4`, `5!` not `5`, `x²` not `x2`."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", question).casefold())
    return " ".join(folded.split()).rstrip("?. ")


def question_key(example: Example) -> str:
    """Digest of everything the model is asked, for deduplication and for the split."""
    return _key(example.before, example.question, example.options)


def with_distinct_ids(examples: Sequence[Example]) -> list[Example]:
    """The same examples; of those that share an id the second becomes `id#2`, and so on.

    Evaluation pairs samples by id, and a user's own column may repeat one.
    """
    taken = {example.id for example in examples}
    seen: Counter[str] = Counter()
    distinct = []
    for example in examples:
        seen[example.id] += 1
        if seen[example.id] > 1:
            while (name := f"{example.id}#{seen[example.id]}") in taken:
                seen[example.id] += 1
            taken.add(name)
            example = replace(example, id=name)
        distinct.append(example)
    return distinct


def _key(before: Sequence[Turn], question: str, options: str | None) -> str:
    asked = [turn.text for turn in before] + [question, options or ""]
    return hashlib.sha256("\x1f".join(normalized(text) for text in asked).encode()).hexdigest()


def _asked_and_answered(layout: Format, columns: ColumnMap) -> tuple[str, str]:
    asked, answered = ("instruction", "output") if layout == "alpaca" else ("question", "answer")
    return columns.question or asked, columns.answer or answered


def _conversation_column(rows: Sequence[Row], layout: Format) -> str:
    usual = "messages" if layout == "messages" else "conversations"
    for name in (usual, *CONVERSATION_COLUMNS):
        if any(is_conversation(row.get(name)) for row in rows):
            return name
    return usual


def _present(row: Row, column: str) -> object:
    if column not in row:
        remedy = "write the column into every row, or map another in data.columns"
        raise Unusable(Reason(f"no column '{column}'", remedy))
    return row[column]


def _text(value: object) -> str:
    try:
        return "" if value is None else str(value).strip()
    except RecursionError:  # lists in lists, just shallow enough to be read
        raise Unusable(Reason("nested too deeply")) from None


def _optional(row: Row, column: str | None) -> str | None:
    return (_text(row.get(column)) or None) if column else None


def _options(value: object) -> str | None:
    if isinstance(value, Mapping):
        listed = [(str(letter), _text(text)) for letter, text in value.items()]
    elif isinstance(value, list):
        listed = [_option(position, option) for position, option in enumerate(value)]
    else:
        return _text(value) or None
    # Texts that bring their letters keep them.
    if all(re.match(rf"\(?{re.escape(letter)}[.):]", text) for letter, text in listed if text):
        return "\n".join(text for _, text in listed if text) or None
    return "\n".join(f"{letter}. {text}" for letter, text in listed if text)


def _option(position: int, option: object) -> tuple[str, str]:
    """Letter and text of one of a list of options: a text, or a mapping of `key` and `value`."""
    letter = chr(ord("A") + position) if position < 26 else str(position + 1)
    if isinstance(option, Mapping):
        return _text(option.get("key")) or letter, _text(option.get("value"))
    return letter, _text(option)
