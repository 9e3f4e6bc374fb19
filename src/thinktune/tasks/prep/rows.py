"""From a dataset's own layout to one shape: question, reasoning, answer.

Called by `preparation`. Layouts: `columns` (a column per role), `alpaca` (instruction, input,
output), `sharegpt` and `messages` (a list of turns, read by `conversations`).
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.cells import is_missing, text_of
from thinktune.tasks.prep.conversations import (
    Said,
    one_reasoning,
    read_conversation,
    read_history,
)
from thinktune.tasks.prep.known_columns import KNOWN_ROLES
from thinktune.tasks.prep.options import options_of
from thinktune.tasks.prep.readers.records import Row
from thinktune.tasks.prep.recognition import Layout
from thinktune.tasks.prep.turns import WEIGHT_KEYS
from thinktune.text.conversation import Exchange, Reason, Turn, Unusable
from thinktune.text.templates import END_TEXTS
from thinktune.text.think import THINK_CLOSE, THINK_OPEN, other_spelling
from thinktune.text.visible import shows_nothing

ID_CHARACTERS = 16
EMPTY_QUESTION = Reason("empty question")
EMPTY_ANSWER = Reason("empty answer")
NOTHING_BEHIND = Reason("nothing behind the think part", "write the answer behind </think>")
NUMBERED_ANSWER = Reason(
    "the answer is a number, and the options have letters", "write the letter as the answer"
)
MEDIA = ("images", "image", "audios", "audio", "videos", "video")
TOOLS_BESIDE = ("tools", "functions", "tool_calls")
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
TWO_SYSTEMS = Reason(
    "two different system prompts", "keep one, in a turn or in a column of its own"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Exchange):
    """One question with its answer, whatever the row's layout was."""

    id: str

    def with_texts(self, change: Callable[[str], str]) -> "Example":
        """The same with each text changed."""
        return replace(
            self,
            question=change(self.question),
            answer=change(self.answer),
            reasoning=None if self.reasoning is None else change(self.reasoning),
            summary=None if self.summary is None else change(self.summary),
            system=None if self.system is None else change(self.system),
            options=None if self.options is None else change(self.options),
            before=tuple(replace(turn, text=change(turn.text)) for turn in self.before),
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What one row gives."""

    examples: tuple[Example, ...]
    end_tokens: int
    """Answers that ended in the text of an end token, which was taken off."""
    turns_left: int
    """Turns of the assistant that are part of a prompt and not learned."""
    turns_after: int
    """Turns behind the last answer, which nobody answers."""


def examples_of(row: Row, layout: Layout, data: DataSpec) -> Taken:
    """One row in our shape; several examples where each answer of a conversation is learned.

    Raises Unusable where the row gives none.
    """
    _check_row(row, layout, data)
    if layout.conversational:
        return _of_conversation(row, layout, data)
    columns = layout.columns
    question = text_of(_present(row, columns.question), str(columns.question))
    more = text_of(row.get(columns.input), columns.input) if columns.input else None
    question = f"{question or ''}\n\n{more}".strip() if more else question
    beside = _optional(row, columns.reasoning)
    answer = text_of(_present(row, columns.answer), str(columns.answer)) or ""
    reasoning, answer = one_reasoning(
        [_tagged(beside, data)] if beside else [], _tagged(answer, data)
    )
    before = read_history(row.get(columns.history)) if columns.history else ()
    said = Said(before, question or "", reasoning, answer)
    example, ended = _example(row, layout, said, _optional(row, columns.system), number=1)
    return Taken((example,), ended, len(before) // 2, 0)


def _of_conversation(row: Row, layout: Layout, data: DataSpec) -> Taken:
    columns = layout.columns
    beside = _optional(row, columns.reasoning)
    ended = 0

    def clean(role: str, text: str) -> str:
        nonlocal ended
        text, end = without_end(text)
        ended += end
        return _tagged(text, data) if role == "assistant" else text

    conversation = read_conversation(
        _present(row, columns.conversation),
        row.get(columns.completion) if columns.completion else None,
        every=data.learn_turns == "every",
        ignored_keys=data.ignore_turn_keys,
        beside=_tagged(beside, data) if beside else None,
        clean=clean,
    )
    system = _optional(row, columns.system)
    if system and conversation.system and system != conversation.system.strip():
        raise Unusable(TWO_SYSTEMS)
    examples: list[Example] = []
    unusable: Unusable | None = None
    for number, said in enumerate(conversation.said, start=1):
        try:
            if isinstance(said, Unusable):
                raise said
            example, end = _example(row, layout, said, conversation.system or system, number=number)
        except Unusable as error:
            unusable = error
        else:
            examples.append(example)
            ended += end
    if not examples and unusable is not None:
        raise unusable
    left = conversation.answers - len(examples)
    return Taken(tuple(examples), ended, left, conversation.after)


def _example(
    row: Row, layout: Layout, said: Said, system: str | None, *, number: int
) -> tuple[Example, int]:
    """The example, and whether an end token was taken off its answer. Raises Unusable."""
    question = said.question.strip()
    answer, ended = without_end(said.answer)
    if shows_nothing(question):
        raise Unusable(EMPTY_QUESTION)
    if shows_nothing(answer):
        raise Unusable(NOTHING_BEHIND if said.reasoning else EMPTY_ANSWER)
    reasoning = None if shows_nothing(said.reasoning or "") else said.reasoning
    if reasoning is None:
        spelled = other_spelling(answer)
        if spelled is not None:
            raise Unusable(_other_spelling(*spelled))
    columns = layout.columns
    options = options_of(row.get(columns.options), columns.options) if columns.options else None
    if options and columns.answer and type(row.get(columns.answer)) is int:
        raise Unusable(NUMBERED_ANSWER)
    system = (system or "").strip() or None
    given = _optional(row, columns.id)
    if given and number > 1:
        given = f"{given}.{number}"
    example = Example(
        id=given or _key(system, said.before, question, options)[:ID_CHARACTERS],
        question=question,
        answer=answer,
        reasoning=reasoning,
        summary=_optional(row, columns.summary),
        system=system,
        options=options,
        before=said.before,
    )
    return example, int(ended)


def _check_row(row: Row, layout: Layout, data: DataSpec) -> None:
    """Raises Unusable for what stands beside the text and changes what it means."""
    for name in layout.late.intersection(row):
        if not is_missing(row[name]) and name not in data.ignore_columns:
            remedy = f"say what it is, as in data.columns.{KNOWN_ROLES[name.lower()]}={name}"
            raise Unusable(Reason(f"a column '{name}', which the first rows lack", remedy))
    if not layout.own_file:
        return
    for name in (*MEDIA, *TOOLS_BESIDE, *WEIGHT_KEYS):
        value = row.get(name)
        if is_missing(value) or value in ("", "[]", [], {}) or name in data.ignore_columns:
            continue
        remedy = f"leave such rows out, or set data.ignore_columns=[{name}]"
        if name in MEDIA:
            raise Unusable(Reason(f"'{name}' beside the text", remedy))
        if name in TOOLS_BESIDE:
            raise Unusable(Reason(f"tools beside the text ('{name}')", remedy))
        if value in (0, "0", False):
            raise Unusable(Reason(f"{name} 0: not to be learned", remedy))
    disliked = row.get("kto_tag") is False or (row.get("label") is False and "completion" in row)
    if disliked and not {"kto_tag", "label"} & set(data.ignore_columns):
        remedy = "leave such rows out, or set data.ignore_columns=[label, kto_tag]"
        raise Unusable(Reason("labeled as an answer not to give", remedy))


def without_end(answer: str) -> tuple[str, bool]:
    """The answer without end tokens that somebody wrote behind it as text."""
    text = answer.strip().rstrip(INVISIBLE).rstrip()
    ended = False
    while end := next((end for end in END_TEXTS if text.endswith(end)), None):
        if end == "</s>" and "<s>" in text:  # a tag, not a token
            break
        text = text[: -len(end)].rstrip().rstrip(INVISIBLE).rstrip()
        ended = True
    return (text if ended else answer.strip()), ended


def normalized(question: str) -> str:
    """What makes two questions the same: case, spacing, spellings of one character and the mark at
    the end aside. Other marks stay: `3 + 4` is not `3 - 4`, `5!` not `5`, `x²` not `x2`."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", question).casefold())
    return " ".join(folded.split()).rstrip("?. ")


def question_key(example: Example) -> str:
    """Digest of everything the model is asked: the system prompt, earlier turns and options too."""
    return _key(example.system, example.before, example.question, example.options)


def _key(system: str | None, before: Sequence[Turn], question: str, options: str | None) -> str:
    asked = [*(turn.text for turn in before), question, options or ""]
    asked += [system] if system else []
    return hashlib.sha256("\x1f".join(normalized(text) for text in asked).encode()).hexdigest()


def _other_spelling(opened: str, closed: str | None) -> Reason:
    pair = json.dumps([[opened, closed or "…"]], ensure_ascii=False)
    remedy = f"if it is the reasoning, say how it is marked: data.think_tags={pair}"
    if closed is None:
        remedy += ", with the mark at its end"
    return Reason(f"a think part in another spelling, '{opened}'", remedy)


def _tagged(text: str, data: DataSpec) -> str:
    """The text with the recipe's own marks of reasoning as the usual ones."""
    for opened, closed in data.think_tags:
        text = text.replace(opened, THINK_OPEN).replace(closed, THINK_CLOSE)
    return text


def _present(row: Row, column: str | None) -> object:
    if column not in row:
        remedy = "write the column into every row, or map another in data.columns"
        raise Unusable(Reason(f"no column '{column}'", remedy))
    return row[column]


def _optional(row: Row, column: str | None) -> str | None:
    return text_of(row.get(column), column) if column else None
