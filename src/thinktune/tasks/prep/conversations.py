"""Turns of a conversation, and its reasoning wherever that stands.

Called by `rows`. A turn names its speaker under `from` or `role` and holds its text under `value`
or `content`; both are taken in either layout, as datasets mix them. Reasoning stands inside the
text, under a key of its own, or as a part of a list of contents.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thinktune.schema.catalog import Format
from thinktune.tasks.prep.readers import SURROGATE
from thinktune.text.conversation import TEXT_BEFORE_THINK, Reason, Turn, Unusable
from thinktune.text.think import split_think

CONVERSATIONAL: tuple[Format, ...] = ("messages", "sharegpt")
"""The layouts whose rows hold a list of turns."""
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
REASONING_PARTS = ("thinking", "reasoning")
"""Types of content parts that hold reasoning."""
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
TOOL_ROLES = {
    *("tool", "tool_call", "tool_response", "observation", "ipython"),
    *("function", "function_call", "function_response"),
}
ROLE_SHOWN = 40
"""Characters of an unknown role that the data card shows."""

USER_AND_ASSISTANT = "turns are by user and assistant (human and gpt), one after the other"
NOT_ALTERNATING = Reason("turns do not alternate user, assistant", USER_AND_ASSISTANT)
NO_TURNS = Reason(
    "conversation is not a list of turns",
    "map data.columns.conversation to a list of objects with role and content",
)
HALF_A_PAIR = Reason(
    "half a surrogate pair in the text", "write the text again, whole characters only"
)
TOOLS = Reason(
    "tool turns are not supported",
    "leave out conversations that use tools, by data.filters or in the file",
)
TWO_REASONINGS = Reason(
    "two different think parts",
    "keep the reasoning in one place, the answer's think part or a column or key of its own",
)
TEXT_AFTER_REASONING = Reason(
    "text after the think part of the reasoning",
    "the column of the reasoning holds more; map the right one",
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A list of turns, read up to its last answer."""

    system: str | None
    before: tuple[Turn, ...]
    question: str
    reasoning: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class _Said:
    role: str
    text: str
    reasoning: tuple[str, ...]
    """What stands beside the text, from each place that has some."""


def is_conversation(value: object) -> bool:
    """Whether a column's value is a list of turns, or JSON text of one."""
    try:
        turns = _turns(value)
    except Unusable:
        return False
    return bool(turns) and all(_first(turn, ("role", "from")) is not None for turn in turns)


def read_conversation(value: object) -> Conversation:
    """A conversation column's value. Raises Unusable."""
    said = [_said(turn) for turn in _turns(value)]
    system = "\n".join(turn.text for turn in said if turn.role == "system") or None
    said = [turn for turn in said if turn.role != "system"]
    while said and said[-1].role != "assistant":
        said.pop()
    roles = [turn.role for turn in said]
    if len(said) < 2 or roles != ["user", "assistant"] * (len(said) // 2):
        raise Unusable(NOT_ALTERNATING)
    before = tuple(
        Turn(turn.role, split_think(turn.text)[1] if turn.role == "assistant" else turn.text)
        for turn in said[:-2]
    )
    reasoning, answer = one_reasoning(said[-1].reasoning, said[-1].text)
    return Conversation(system, before, said[-2].text, reasoning, answer)


def one_reasoning(beside: Iterable[str], text: str) -> tuple[str | None, str]:
    """Reasoning and answer, where reasoning may stand beside the text, inside it, or in both.

    The text is split whatever stands beside it: an answer never keeps a think part. Raises Unusable
    where the places say different things.
    """
    inside, answer = split_think(text)
    found = [given for given in (_bare(given) for given in beside) if given]
    found += [inside] if inside else []
    if len({" ".join(reasoning.split()) for reasoning in found}) > 1:
        raise Unusable(TWO_REASONINGS)
    return (found[0] if found else None), answer


def _bare(reasoning: str) -> str:
    """Reasoning without the tags that some datasets write around it in its own column too."""
    inside, rest = split_think(reasoning)
    if inside is not None and rest:
        raise Unusable(TEXT_AFTER_REASONING)
    return rest if inside is None else inside


def _turns(value: object) -> list[Mapping[str, Any]]:
    if isinstance(value, str):  # a list that a CSV or Parquet file carries as JSON text
        escapes = SURROGATE.search(value)
        try:
            value = json.loads(value)
            if escapes:
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Unusable(HALF_A_PAIR) from None
        except (ValueError, RecursionError):
            raise Unusable(NO_TURNS) from None
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise Unusable(NO_TURNS)
    return value


def _said(turn: Mapping[str, Any]) -> _Said:
    name = str(_first(turn, ("role", "from")) or "").strip()
    if name.lower() in TOOL_ROLES:
        raise Unusable(TOOLS)
    role = ROLES.get(name.lower())
    if role is None:
        raise Unusable(Reason(f"unknown role '{name[:ROLE_SHOWN]}'", USER_AND_ASSISTANT))
    text, thought = _content(_first(turn, ("content", "value")))
    beside = [turn[key] for key in REASONING_KEYS if isinstance(turn.get(key), str)]
    return _Said(role, text, (*beside, thought))


def _content(content: object) -> tuple[str, str]:
    """Text and reasoning of a turn's content: a text, or a list of parts."""
    if not isinstance(content, list):
        return ("" if content is None else str(content)), ""
    text: list[str] = []
    reasoning: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Mapping) and part.get("type") in REASONING_PARTS:
            if "".join(text).strip():
                raise Unusable(TEXT_BEFORE_THINK)
            # The value may be a list of text parts itself.
            reasoning.append(_content(_first(part, (*REASONING_PARTS, "text")))[0])
        elif isinstance(part, Mapping) and part.get("text") is not None:
            text.append(str(part["text"]))
    return "".join(text), "\n".join(reasoning)


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first that is there: a Parquet file has all names in all rows, most of them null."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)
