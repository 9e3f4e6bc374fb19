"""From a dataset's own layout to one shape: question, reasoning, answer.

Called by `stage`. Layouts: `columns` (a column per role), `alpaca` (instruction, input, output),
`sharegpt` (conversations of from/value) and `messages` (role/content, reasoning inside the content
or under `reasoning_content`, `reasoning` or `thinking`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinktune.spec.catalog import ColumnMap, Format
from thinktune.spec.errors import DataInvalid, near_misses
from thinktune.tasks.prep.readers import Row

THINK = re.compile(r"^\s*(?:<think>)?(?P<reasoning>.*?)</think>(?P<answer>.*)$", re.DOTALL)
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "developer": "system",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said before the last question; an assistant's turn without its reasoning."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row, whatever its layout was."""

    id: str
    question: str
    answer: str
    reasoning: str | None
    """None: the row has no complete think part."""
    summary: str | None
    system: str | None
    options: str | None
    before: tuple[Turn, ...]
    row: Row
    """The row as it came: filters and balance read other columns of it."""


class Unusable(Exception):
    """This row is dropped; the message is the reason that the data card counts."""


def detect_format(row: Row) -> Format:
    """The layout of a user's own file, by its columns. Raises DataInvalid."""
    if "messages" in row:
        return "messages"
    if "conversations" in row:
        return "sharegpt"
    if "instruction" in row and "output" in row:
        return "alpaca"
    return "columns"


def check_columns(row: Row, layout: Format, columns: ColumnMap, place: str) -> None:
    """Fails early when the first row lacks a column that the mapping names."""
    needed = {role: name for role, name in columns.model_dump().items() if name is not None}
    if layout == "columns":
        for role in ("question", "answer"):
            needed.setdefault(role, role)
    elif layout in ("messages", "sharegpt"):
        fallback = "messages" if layout == "messages" else "conversations"
        needed = {"conversation": columns.conversation or fallback}
    else:
        needed = {"question": columns.question or "instruction"}
        needed["answer"] = columns.answer or "output"
    for role, name in needed.items():
        if name not in row:
            fault = f"no column '{name}', which plays the role '{role}'"
            remedy = f"set data.columns.{role}; {near_misses(name, map(str, row))}"
            raise DataInvalid(place, fault, remedy)


def to_example(row: Row, layout: Format, columns: ColumnMap) -> Example:
    """One row in our shape. Raises Unusable."""
    if layout in ("messages", "sharegpt"):
        return _conversation(row, layout, columns)
    if layout == "alpaca":
        question = _text(row, columns.question or "instruction")
        more = _text(row, "input")
        question = f"{question}\n\n{more}" if more else question
        answer = _text(row, columns.answer or "output")
    else:
        question = _text(row, columns.question or "question")
        answer = _text(row, columns.answer or "answer")
    reasoning = _text(row, columns.reasoning) if columns.reasoning else None
    if not reasoning:
        reasoning, answer = split_think(answer)
    return _example(row, columns, question, answer, reasoning, system=None, before=())


def split_think(text: str) -> tuple[str | None, str]:
    """`<think>r</think>a` → (r, a); text without a closing tag → (None, text)."""
    match = THINK.match(text)
    if match is None:
        if "<think>" in text:
            raise Unusable("unfinished think part")
        return None, text.strip()
    reasoning, answer = match["reasoning"].strip(), match["answer"].strip()
    if "<think>" in reasoning or "<think>" in answer or "</think>" in answer:
        raise Unusable("more than one think part")
    return reasoning, answer


def normalised(question: str) -> str:
    """What makes two questions the same: case, spacing and punctuation aside."""
    return " ".join(re.findall(r"\w+", question.lower()))


def question_key(example: Example) -> str:
    """Digest of everything the model is asked, for deduplication and for the split."""
    asked = [turn.text for turn in example.before] + [example.question, example.options or ""]
    return hashlib.sha256("\x1f".join(normalised(text) for text in asked).encode()).hexdigest()


def _example(
    row: Row,
    columns: ColumnMap,
    question: str,
    answer: str,
    reasoning: str | None,
    *,
    system: str | None,
    before: tuple[Turn, ...],
) -> Example:
    if not question.strip():
        raise Unusable("empty question")
    if not answer.strip():
        raise Unusable("empty answer")
    identifier = _text(row, columns.id) if columns.id else ""
    if not identifier:
        identifier = hashlib.sha256(normalised(question).encode()).hexdigest()[:16]
    return Example(
        id=identifier,
        question=question.strip(),
        answer=answer.strip(),
        reasoning=reasoning.strip() if reasoning and reasoning.strip() else None,
        summary=(_text(row, columns.summary) or None) if columns.summary else None,
        system=system or ((_text(row, columns.system) or None) if columns.system else None),
        options=_options(row, columns.options) if columns.options else None,
        before=before,
        row=row,
    )


def _conversation(row: Row, layout: Format, columns: ColumnMap) -> Example:
    name = columns.conversation or ("messages" if layout == "messages" else "conversations")
    turns = row.get(name)
    if isinstance(turns, str):  # a list that a CSV or Parquet file carries as JSON text
        try:
            turns = json.loads(turns)
        except ValueError:
            raise Unusable("conversation is not a list of turns") from None
    if not isinstance(turns, Sequence) or not all(isinstance(t, Mapping) for t in turns):
        raise Unusable("conversation is not a list of turns")
    said = [_turn(turn, layout) for turn in turns]
    system = "\n".join(text for role, text, _ in said if role == "system") or None
    said = [turn for turn in said if turn[0] != "system"]
    while said and said[-1][0] != "assistant":
        said.pop()
    roles = [role for role, _, _ in said]
    if len(said) < 2 or roles != ["user", "assistant"] * (len(said) // 2):
        raise Unusable("turns do not alternate user, assistant")
    before = []
    for role, text, _ in said[:-2]:
        before.append(Turn(role, split_think(text)[1] if role == "assistant" else text))
    _, question, _ = said[-2]
    _, content, reasoning = said[-1]
    answer = content
    if not reasoning:
        reasoning, answer = split_think(content)
    return _example(row, columns, question, answer, reasoning, system=system, before=tuple(before))


def _turn(turn: Mapping[str, Any], layout: Format) -> tuple[str, str, str | None]:
    said, text = ("from", "value") if layout == "sharegpt" else ("role", "content")
    role = ROLES.get(str(turn.get(said, "")).lower())
    if role is None:
        raise Unusable(f"unknown role '{turn.get(said)}'")
    content = turn.get(text)
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(
            str(part.get("text", "")) for part in content if isinstance(part, Mapping)
        )
    reasoning = next((str(turn[key]) for key in REASONING_KEYS if turn.get(key)), None)
    return role, str(content or ""), reasoning


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _options(row: Row, column: str) -> str | None:
    value = row.get(column)
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Mapping):
        return "\n".join(f"{letter}. {text}" for letter, text in value.items() if text)
    return None
