"""From a dataset's own layout to one shape: question, reasoning, answer.

Called by `preparation`. Layouts: `columns` (a column per role), `alpaca` (instruction, input,
output), `sharegpt` and `messages` (a list of turns, read by `conversations`).
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.cells import is_missing, text_of
from thinktune.tasks.prep.conversations import (
    Said,
    one_reasoning,
    read_conversation,
    read_history,
)
from thinktune.tasks.prep.readers.records import Row
from thinktune.tasks.prep.recognition import Layout
from thinktune.text.conversation import Exchange, Reason, Turn, Unusable
from thinktune.text.templates import END_TEXTS
from thinktune.text.think import THINK_CLOSE, THINK_OPEN, other_spelling

ID_CHARACTERS = 16
EMPTY_QUESTION = Reason("empty question")
EMPTY_ANSWER = Reason("empty answer")
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
    conversation = read_conversation(
        _present(row, columns.conversation),
        row.get(columns.completion) if columns.completion else None,
        every=data.learn_turns == "every",
        ignored_keys=data.ignore_turn_keys,
        beside=_tagged(beside, data) if beside else None,
        marked=lambda text: _tagged(text, data),
    )
    system = _optional(row, columns.system)
    if system and conversation.system and system != conversation.system.strip():
        raise Unusable(TWO_SYSTEMS)
    examples: list[Example] = []
    ended = 0
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
    answers = (
        len(conversation.said[-1].before) // 2 if isinstance(conversation.said[-1], Said) else 0
    )
    return Taken(tuple(examples), ended, answers + 1 - len(examples), conversation.after)


def _example(
    row: Row, layout: Layout, said: Said, system: str | None, *, number: int
) -> tuple[Example, int]:
    """The example, and whether an end token was taken off its answer. Raises Unusable."""
    question = said.question.strip()
    answer, ended = without_end(said.answer)
    if not question:
        raise Unusable(EMPTY_QUESTION)
    if not answer:
        raise Unusable(EMPTY_ANSWER)
    if said.reasoning is None:
        spelled = other_spelling(answer)
        if spelled is not None:
            raise Unusable(_other_spelling(*spelled))
    columns = layout.columns
    options = _options(row.get(columns.options), columns.options) if columns.options else None
    system = (system or "").strip() or None
    given = _optional(row, columns.id)
    if given and number > 1:
        given = f"{given}.{number}"
    example = Example(
        id=given or _key(system, said.before, question, options)[:ID_CHARACTERS],
        question=question,
        answer=answer,
        reasoning=said.reasoning,
        summary=_optional(row, columns.summary),
        system=system,
        options=options,
        before=said.before,
    )
    return example, int(ended)


def without_end(answer: str) -> tuple[str, bool]:
    """The answer without end tokens that somebody wrote behind it as text."""
    text = answer.strip()
    ended = False
    while end := next((end for end in END_TEXTS if text.endswith(end)), None):
        text = text[: -len(end)].rstrip()
        ended = True
    return text, ended


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


def _options(value: object, column: str) -> str | None:
    if isinstance(value, Mapping):
        listed = [(str(letter), text_of(text, column) or "") for letter, text in value.items()]
    elif isinstance(value, list):
        listed = [_option(position, option, column) for position, option in enumerate(value)]
    else:
        return None if is_missing(value) else text_of(value, column)
    # Texts that bring their letters keep them.
    if all(re.match(rf"\(?{re.escape(letter)}[.):]", text) for letter, text in listed if text):
        return "\n".join(text for _, text in listed if text) or None
    return "\n".join(f"{letter}. {text}" for letter, text in listed if text)


def _option(position: int, option: object, column: str) -> tuple[str, str]:
    """Letter and text of one of a list of options: a text, or a mapping of `key` and `value`."""
    letter = chr(ord("A") + position) if position < 26 else str(position + 1)
    if isinstance(option, Mapping):
        key = text_of(option.get("key"), column)
        return key or letter, text_of(option.get("value"), column) or ""
    return letter, text_of(option, column) or ""
