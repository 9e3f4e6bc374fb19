"""What came back: the text of a reply, what it cost, and why there is none.

Read anew from the raw body each time, so that nothing about the reading is frozen in the cache.
Used by the live loop, batches and whoever takes a reply from the cache.
"""

import json
from dataclasses import dataclass
from typing import Any

from thinktune.llm.requests import Tokens
from thinktune.schema.llm import Provider
from thinktune.text.think import split_generated
from thinktune.text.visible import has_half_character, shows_nothing

TRUNCATED = "truncated"
EMPTY = "empty"
REFUSED = "refused"
NOT_TEXT = "not_text"

_CUT = {"length", "max_tokens", "model_context_window_exceeded"}
_DENIED = {"content_filter", "refusal"}
_CALLS = {"tool_calls", "function_call", "tool_use"}


class NotAReplyError(ValueError):
    """A body that is none: not JSON, cut off, or without anything written by a model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply, read."""

    text: str
    """What the model answered, thinking taken off; empty where there is a problem."""
    thinking: str
    """What it thought, where the endpoint tells."""
    problem: str | None
    """Why this is no answer: `truncated`, `empty`, `refused`, `not_text`. None if it is one."""
    usage: Tokens | None
    """What was billed; None if the endpoint does not say."""
    cut: str = ""
    """Of a truncated reply, what was answered before its limit."""


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises NotAReplyError, for a cut in the middle of a character
    too."""
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise NotAReplyError("the body is cut off or not JSON") from None
    if not isinstance(body, dict):
        raise NotAReplyError("the body is no JSON object")
    return body


def read_answer(provider: Provider, body: dict[str, Any]) -> Answer:
    """Text, thinking and usage of a body. Raises NotAReplyError for one that holds no reply."""
    read = _read_anthropic if provider == "anthropic" else _read_openai
    content, thinking, finish = read(body)
    # Servers without a reasoning parser send the marks in the text.
    parsed = split_generated(content, prompt_opens_think=False)
    text = parsed.answer
    thinking = "\n".join(part for part in (thinking.strip(), parsed.thinking) if part)
    problem = _problem(finish, text, thinking, parsed.closed)
    cut = text if problem == TRUNCATED and not has_half_character(text) else ""
    return Answer("" if problem else text, thinking, problem, usage_of(body), cut)


def usage_of(body: dict[str, Any]) -> Tokens | None:
    """Tokens billed, of a failed reply too; None where the body has no two whole numbers."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    used = [_whole(usage, "prompt_tokens", "input_tokens")]
    used += [_whole(usage, "completion_tokens", "output_tokens")]
    if used[0] is None or used[1] is None:
        return None
    # Anthropic counts what its prompt cache wrote and read apart from the other input.
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    extra = sum(_whole(usage, name) or 0 for name in cached)
    return Tokens(used[0] + extra, used[1])


def _whole(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _problem(finish: str, text: str, thinking: str, closed: bool) -> str | None:
    if finish in _CUT or not closed:
        return TRUNCATED
    if finish in _DENIED:
        return REFUSED
    if has_half_character(text):
        return NOT_TEXT
    if not shows_nothing(text):
        return None
    if finish in _CALLS:
        return NOT_TEXT
    # A reasoning model that has thought and said nothing has run out of tokens, whatever it says.
    return TRUNCATED if thinking else EMPTY


def _read_openai(body: dict[str, Any]) -> tuple[str, str, str]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NotAReplyError("the body has no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise NotAReplyError("the first choice has no message")
    thinking = _text(message.get("reasoning_content") or message.get("reasoning"))
    finish = str(choices[0].get("finish_reason") or "")
    if message.get("refusal"):
        finish = "refusal"
    return _text(message.get("content")), thinking, finish


def _read_anthropic(body: dict[str, Any]) -> tuple[str, str, str]:
    blocks = body.get("content")
    if not isinstance(blocks, list):
        raise NotAReplyError("the body has no content")
    found = [block for block in blocks if isinstance(block, dict)]
    thinking = "\n".join(_text(b.get("thinking")) for b in found if b.get("type") == "thinking")
    return _text(found), thinking, str(body.get("stop_reason") or "")


def _text(content: Any) -> str:
    """Text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
        return "".join(text for text in texts if isinstance(text, str))
    return ""
