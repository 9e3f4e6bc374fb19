"""Turns of a conversation, and its reasoning wherever that stands.

Called by `rows`. Reasoning stands inside the text, under a key of its own (`turns`), or in a column
beside the conversation.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinktune.schema.catalog import Format
from thinktune.tasks.prep.cells import is_missing, text_of
from thinktune.tasks.prep.readers.records import HALF_A_PAIR, SURROGATE, has_half_pair
from thinktune.tasks.prep.turns import (
    ROLE_KEYS,
    USER_AND_ASSISTANT,
    ReadTurn,
    first_of,
    read_turn,
)
from thinktune.text.conversation import Reason, Turn, Unusable
from thinktune.text.think import split_think
from thinktune.text.visible import shows_nothing

BETWEEN_SYSTEMS = "\n\n"
"""Between several system turns, which become one prompt, as DeepSeek's templates join them."""
CONVERSATIONAL: tuple[Format, ...] = ("messages", "sharegpt")
"""The layouts whose rows hold a list of turns."""
NOT_ALTERNATING = Reason("turns do not alternate user, assistant", USER_AND_ASSISTANT)
NO_TURNS = Reason(
    "conversation is not a list of turns",
    "map data.columns.conversation to a list of objects with role and content",
)
PYTHON_TEXT = Reason(
    "conversation is Python's text of a list, not JSON",
    "write the column by json.dumps, or save the rows as JSON lines",
)
TWO_REASONINGS = Reason(
    "two different think parts",
    "keep the reasoning in one place, the answer's think part or a column or key of its own",
)
TEXT_AFTER_REASONING = Reason(
    "text after the think part of the reasoning",
    "the column of the reasoning holds more; map the right one",
)
EMPTY_TURN = Reason("an earlier turn without text", "leave out turns that say nothing")
SYSTEM_LATER = Reason(
    "a system turn after the first question", "system turns stand at the beginning"
)
WEIGHT_ZERO = Reason(
    "an answer of weight 0, which is not to be learned",
    "leave such rows out, or take the weight out of the turns",
)
ODD_HISTORY = Reason(
    "history is not a list of pairs", "write it as [[question, answer], …], the oldest first"
)


@dataclass(frozen=True, slots=True)
class Said:
    """A question with the answer that was given, and what was said before."""

    before: tuple[Turn, ...]
    question: str
    reasoning: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A list of turns, read up to its last answer."""

    system: str | None
    said: tuple[Said | Unusable, ...]
    """For each answer that may be learned; what makes one unusable leaves the others."""
    answers: int
    """All answers of the conversation."""
    after: int
    """Turns behind the last answer, which nobody answers."""


def is_conversation(value: object) -> bool:
    """Whether a column's value is a list of turns, or JSON text of one."""
    try:
        turns = turns_of(value)
    except Unusable:
        return False
    return bool(turns) and all(first_of(turn, ROLE_KEYS) is not None for turn in turns)


def read_conversation(
    value: object,
    completion: object = None,
    *,
    every: bool = False,
    ignored_keys: Collection[str] = (),
    beside: str | None = None,
    clean: Callable[[str, str], str] = lambda _role, text: text,
) -> Conversation:
    """A conversation column's value, with the turns that a second column holds after them.

    With `every`, each answer is one to learn, else the last one. `beside`: reasoning of the last
    answer out of another column. `clean` takes role and text of each turn
    and gives its text. Raises
    Unusable where no answer can be learned.
    """
    turns = turns_of(value) + _completion(completion)
    read = [read_turn(turn, ignored_keys, clean) for turn in turns]
    start = next((n for n, turn in enumerate(read) if turn.role != "system"), len(read))
    system = BETWEEN_SYSTEMS.join(turn.text for turn in read[:start]) or None
    read = read[start:]
    if any(turn.role == "system" for turn in read):
        raise Unusable(SYSTEM_LATER)
    after = 0
    while read and read[-1].role != "assistant":
        read.pop()
        after += 1
    if len(read) < 2 or [t.role for t in read] != ["user", "assistant"] * (len(read) // 2):
        raise Unusable(NOT_ALTERNATING)
    wanted = range(1, len(read), 2) if every else (len(read) - 1,)
    said = [_said(read, position, beside) for position in wanted]
    usable = [one for one in said if isinstance(one, Said)]
    if not usable and isinstance(said[-1], Unusable):
        raise said[-1]
    return Conversation(system, tuple(said), len(read) // 2, after)


def _completion(value: object) -> list[Mapping[str, Any]]:
    """What a second column holds behind the turns: turns, one turn, or the text of an answer."""
    if is_missing(value):
        return []
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [{"role": "assistant", "content": value}]
    return turns_of(value)


def read_history(value: object) -> tuple[Turn, ...]:
    """Earlier turns as pairs of question and answer, as Alpaca-style datasets keep them."""
    value = _parsed(value, ODD_HISTORY)
    if is_missing(value) or value == []:
        return ()
    if not isinstance(value, list):
        raise Unusable(ODD_HISTORY)
    turns: list[Turn] = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(ODD_HISTORY)
        asked, answered = text_of(pair[0], "history"), text_of(pair[1], "history")
        if not asked or not answered:
            raise Unusable(ODD_HISTORY)
        turns += [Turn("user", asked), Turn("assistant", split_think(answered)[1])]
    return tuple(turns)


def one_reasoning(beside: Iterable[str], text: str) -> tuple[str | None, str]:
    """Reasoning and answer, where reasoning may stand beside the text, inside it, or in both.

    The text is split whatever stands beside it: an answer never keeps a think part. Raises Unusable
    where the places say different things.
    """
    inside, answer = split_think(text)
    found = [given for given in (_bare(given) for given in beside) if given]
    found += [inside] if inside else []
    if len(found) > 1 and len({" ".join(reasoning.split()) for reasoning in found}) > 1:
        raise Unusable(TWO_REASONINGS)
    return (found[0] if found else None), answer


def _said(turns: Sequence[ReadTurn], position: int, beside: str | None) -> Said | Unusable:
    """The answer at that position, with all that stands before it."""
    answer, asked = turns[position], turns[position - 1]
    try:
        if not answer.learned:
            raise Unusable(WEIGHT_ZERO)
        last = position == len(turns) - 1
        given = (*answer.reasoning, beside) if beside and last else answer.reasoning
        reasoning, text = one_reasoning(given, answer.text)
        before = tuple(
            Turn(turn.role, split_think(turn.text)[1] if turn.role == "assistant" else turn.text)
            for turn in turns[: position - 1]
        )
        if any(shows_nothing(turn.text) for turn in before):
            raise Unusable(EMPTY_TURN)
    except Unusable as unusable:
        return unusable
    return Said(before, asked.text, reasoning, text)


def _bare(reasoning: str) -> str:
    """Reasoning without the tags that some datasets write around it in its own column too."""
    inside, rest = split_think(reasoning)
    if inside is not None and rest:
        raise Unusable(TEXT_AFTER_REASONING)
    return rest if inside is None else inside


def _parsed(value: object, otherwise: Reason) -> object:
    """The value; where a CSV or Parquet file carries it as JSON text, what that says."""
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    text = value
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        printed = text.lstrip().startswith("[{'")
        raise Unusable(PYTHON_TEXT if printed else otherwise) from None
    if SURROGATE.search(text) and has_half_pair(value):
        raise Unusable(HALF_A_PAIR)
    return value


def turns_of(value: object) -> list[Mapping[str, Any]]:
    """The turns of a conversation column's value. Raises Unusable."""
    value = _parsed(value, NO_TURNS)
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise Unusable(NO_TURNS)
    return value
