"""One turn of a conversation: who speaks, what is said, and the reasoning wherever that stands.

Called by `conversations`. A turn names its speaker under `from` or `role` and holds its text under
`value` or `content`; both are taken in either layout, as datasets mix them. Whatever else it holds
is understood or makes the row unusable: a part that is lost changes what the rest means.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from thinktune.tasks.prep.cells import SWITCHES, is_missing, text_of
from thinktune.text.conversation import TEXT_BEFORE_THINK, Reason, Unusable

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
TOOLS = Reason(
    "tool turns are not supported",
    "leave conversations that use tools out of the file",
)
TWO_TEXTS = Reason(
    "a turn that says two things", "keep one of content and value, of role and from, in each turn"
)
TWO_PARTS = Reason("a part of a content that says two things", "write one text in each part")
SWITCH = Reason(
    "a switch where reasoning should be", "take it out of the turns, or write the reasoning there"
)
HIDDEN_REASONING = Reason(
    "reasoning that is encrypted or redacted", "keep rows whose reasoning is text"
)
ODD_WEIGHT = Reason("a weight other than 0 and 1", "only 0 and 1 can be honored")


@dataclass(frozen=True, slots=True)
class ReadTurn:
    """What one turn says."""

    role: str
    """`system`, `user` or `assistant`."""
    text: str
    reasoning: tuple[str, ...]
    """What stands beside the text, from each place that has some."""
    learned: bool
    """Whether it may be learned: datasets mark turns that may not."""


def read_turn(
    turn: Mapping[str, Any], ignored: Collection[str], clean: Callable[[str, str], str]
) -> ReadTurn:
    """One turn; `clean` takes its role and text and gives its text. Raises Unusable."""
    name = str(first_of(turn, ROLE_KEYS) or "").strip()
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
    return ReadTurn(role, text, (*beside, details, thought), learned)


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
    texts = [first_of(part, ("text", "summary")) for part in value]
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
            reasoning.append(_content(first_of(part, tuple(names)))[0])
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


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first that is there: a Parquet file has all names in all rows, most of them null."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)
