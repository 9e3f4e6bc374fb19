"""Turns of a conversation, and its reasoning wherever that stands.

Called by `rows`. A turn names its speaker under `from` or `role` and holds its text under `value`
or `content`; both are taken in either layout, as datasets mix them. Reasoning stands inside the
text, under a key of its own, or as a part of a list of contents. Whatever else a turn holds is
either understood or makes the row unusable: a part that is lost changes what the rest means.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinktune.schema.catalog import Format
from thinktune.tasks.prep.cells import SWITCHES, is_missing, text_of
from thinktune.tasks.prep.readers.records import HALF_A_PAIR, SURROGATE, has_half_pair
from thinktune.text.conversation import TEXT_BEFORE_THINK, Reason, Turn, Unusable
from thinktune.text.think import split_think
from thinktune.text.visible import shows_nothing

CONVERSATIONAL: tuple[Format, ...] = ("messages", "sharegpt")
"""The layouts whose rows hold a list of turns."""
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
DETAILS_KEY = "reasoning_details"
"""OpenRouter's list of parts of the reasoning."""
TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id", "tool_call", "functions")
WEIGHT_KEYS = ("weight", "train", "trainable", "training", "learn", "loss")
"""Marks of turns that are not to be learned: 0 (OpenAI) or false."""
NEUTRAL = ("prefix", "redacted", "toxic", "thought")
"""Keys whose false says nothing."""
TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = ("thinking", "reasoning", "thought")
"""Types of content parts that hold reasoning."""
TOOL_PARTS = ("tool_use", "tool_result", "tool_call", "function_call", "server_tool_use")
PART_KEYS = {"type", "text", "signature", "cache_control", *REASONING_PARTS}
ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bot", "chatbot", "ai"), "assistant"),
    **dict.fromkeys(("bing", "bard", "claude", "gemini"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOL_ROLES = {
    *("tool", "tool_call", "tool_response", "observation", "ipython"),
    *("function", "function_call", "function_response"),
}
SHOWN = 40
"""Characters of an unknown role or key that the data card shows."""

USER_AND_ASSISTANT = "turns are by user and assistant (human and gpt), one after the other"
NOT_ALTERNATING = Reason("turns do not alternate user, assistant", USER_AND_ASSISTANT)
NO_TURNS = Reason(
    "conversation is not a list of turns",
    "map data.columns.conversation to a list of objects with role and content",
)
PYTHON_TEXT = Reason(
    "conversation is Python's text of a list, not JSON",
    "write the column by json.dumps, or save the rows as JSON lines",
)
TOOLS = Reason(
    "tool turns are not supported",
    "leave conversations that use tools out of the file",
)
TWO_REASONINGS = Reason(
    "two different think parts",
    "keep the reasoning in one place, the answer's think part or a column or key of its own",
)
TEXT_AFTER_REASONING = Reason(
    "text after the think part of the reasoning",
    "the column of the reasoning holds more; map the right one",
)
TWO_TEXTS = Reason(
    "a turn that says two things", "keep one of content and value, of role and from, in each turn"
)
TWO_PARTS = Reason("a part of a content that says two things", "write one text in each part")
EMPTY_TURN = Reason("an earlier turn without text", "leave out turns that say nothing")
SWITCH = Reason(
    "a switch where reasoning should be", "take it out of the turns, or write the reasoning there"
)
HIDDEN_REASONING = Reason(
    "reasoning that is encrypted or redacted", "keep rows whose reasoning is text"
)
SYSTEM_LATER = Reason(
    "a system turn after the first question", "system turns stand at the beginning"
)
WEIGHT_ZERO = Reason(
    "an answer of weight 0, which is not to be learned",
    "leave such rows out, or take the weight out of the turns",
)
ODD_WEIGHT = Reason("a weight other than 0 and 1", "only 0 and 1 can be honored")
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


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str
    reasoning: tuple[str, ...]
    """What stands beside the text, from each place that has some."""
    learned: bool


def is_conversation(value: object) -> bool:
    """Whether a column's value is a list of turns, or JSON text of one."""
    try:
        turns = turns_of(value)
    except Unusable:
        return False
    return bool(turns) and all(_first(turn, ROLE_KEYS) is not None for turn in turns)


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
    read = [_read(turn, ignored_keys, clean) for turn in turns]
    start = next((n for n, turn in enumerate(read) if turn.role != "system"), len(read))
    system = "\n\n".join(turn.text for turn in read[:start]) or None
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
    if len({" ".join(reasoning.split()) for reasoning in found}) > 1:
        raise Unusable(TWO_REASONINGS)
    return (found[0] if found else None), answer


def _said(turns: Sequence[_Turn], position: int, beside: str | None) -> Said | Unusable:
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


def _read(
    turn: Mapping[str, Any], ignored: Collection[str], clean: Callable[[str, str], str]
) -> _Turn:
    name = str(_first(turn, ROLE_KEYS) or "").strip()
    if name.lower() in TOOL_ROLES or any(
        _says(turn.get(key)) for key in TOOL_KEYS if key not in ignored
    ):
        raise Unusable(TOOLS)
    role = ROLES.get(name.lower())
    if role is None:
        raise Unusable(
            Reason(
                f"unknown role '{name[:SHOWN]}'" if name else "a turn without role",
                USER_AND_ASSISTANT,
            )
        )
    known = {*ROLE_KEYS, *CONTENT_KEYS, *REASONING_KEYS, *TOOL_KEYS, DETAILS_KEY, *WEIGHT_KEYS}
    for key in turn:
        neutral = key in NEUTRAL and turn[key] is False
        if key not in known and key not in ignored and _holds(turn[key]) and not neutral:
            raise Unusable(_unknown_key(key, "turn"))
    if len({str(turn[key]).strip().lower() for key in ROLE_KEYS if _holds(turn.get(key))}) > 1:
        raise Unusable(TWO_TEXTS)
    said = [turn[key] for key in CONTENT_KEYS if _holds(turn.get(key))]
    if len(said) > 1 and said[0] != said[1]:
        raise Unusable(TWO_TEXTS)
    text, thought = _content(said[0] if said else None)
    beside = [
        text_of(turn[key], key) or ""
        for key in REASONING_KEYS
        if key not in ignored and _holds(turn.get(key))
    ]
    if any(each.strip().lower() in SWITCHES for each in beside):
        raise Unusable(SWITCH)
    details = _details(turn.get(DETAILS_KEY))
    text = clean(role, text)
    if role != "assistant" and (thought or any(beside) or details):
        raise Unusable(Reason("reasoning in a turn that is not the assistant's"))
    learned = all(_is_learned(turn.get(key)) for key in WEIGHT_KEYS if key not in ignored)
    return _Turn(role, text, (*beside, details, thought), learned)


def _unknown_key(key: str, where: str) -> Reason:
    remedy = f"take it out of the rows, or set data.ignore_turn_keys=[{key[:SHOWN]}]"
    return Reason(f"unknown key '{key[:SHOWN]}' in a {where}", remedy)


def _is_learned(weight: object) -> bool:
    if is_missing(weight):
        return True
    if isinstance(weight, (bool, int, float)) and weight in (0, 1):
        return bool(weight)
    raise Unusable(ODD_WEIGHT)


def _details(value: object) -> str:
    if not _holds(value):
        return ""
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise Unusable(_unknown_key(DETAILS_KEY, "turn"))
    texts = [_first(part, ("text", "summary")) for part in value]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable(HIDDEN_REASONING)
    return "\n".join(texts)


def _content(content: object) -> tuple[str, str]:
    """Text and reasoning of a turn's content: a text, or a list of parts."""
    if not isinstance(content, list):
        return text_of(content, "content") or "", ""
    text: list[str] = []
    reasoning: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
            continue
        if not isinstance(part, Mapping):
            raise Unusable(Reason("a part of a content that is neither text nor an object"))
        kind = part.get("type")
        _check_part(part, kind)
        texts = [part[key] for key in ("text", *REASONING_PARTS) if _says(part.get(key))]
        if len(texts) > 1 and any(each != texts[0] for each in texts):
            raise Unusable(TWO_PARTS)
        if kind in REASONING_PARTS or part.get("thought") is True:
            if "".join(text).strip():
                raise Unusable(TEXT_BEFORE_THINK)
            # The value may be a list of text parts itself.
            names = [*(n for n in REASONING_PARTS if part.get(n) is not True), "text"]
            reasoning.append(_content(_first(part, tuple(names)))[0])
        else:
            text.append(text_of(part.get("text"), "text", strip=False) or "")
    return "".join(text), "\n".join(reasoning)


def _check_part(part: Mapping[str, Any], kind: object) -> None:
    """Raises Unusable for a part that is no text: an image, a file, a call of a tool."""
    if kind in TOOL_PARTS:
        raise Unusable(TOOLS)
    if kind == "redacted_thinking":
        raise Unusable(HIDDEN_REASONING)
    if kind is not None and kind not in TEXT_PARTS and kind not in REASONING_PARTS:
        name = str(kind)[:SHOWN]
        remedy = "leave out conversations with images, sounds and files"
        raise Unusable(Reason(f"a part of type '{name}', which is no text", remedy))
    for key in part:
        if key not in PART_KEYS and _holds(part[key]):
            remedy = "take it out of the parts"
            raise Unusable(Reason(f"unknown key '{key[:SHOWN]}' in a part of a content", remedy))


def _says(value: object) -> bool:
    return not isinstance(value, bool) and _holds(value)


def _holds(value: object) -> bool:
    """Whether a key says anything: a Parquet file has all keys in all turns, most of them null."""
    return not (is_missing(value) or (value is not False and value in ("", [], {})))


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first that is there: a Parquet file has all names in all rows, most of them null."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)
