"""What is asked: a rendered request, its body as the provider takes it, and the key of its reply.

Callers make `Request`s; the live loop, batches, the cache and the budget all read them here.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from thinktune.schema.llm import LlmSpec

TEMPLATE_TOKENS = 64
"""More than any chat template adds to a message."""


class Message(NamedTuple):
    """One turn of the conversation that is sent."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask, with all text in place."""

    id: str
    """The caller's name for it, given back with the outcome; several may ask the same."""
    messages: tuple[Message, ...]
    question: str | None = None
    """What a reply must not merely repeat; None: the last message."""
    draft: int = 0
    """Which of several replies to the same messages: each is asked for and kept by itself."""

    def to_json(self) -> str:
        """One line, for `from_json`."""
        return json.dumps([self.id, self.messages, self.question, self.draft])

    @classmethod
    def from_json(cls, line: str) -> "Request":
        """The request that `to_json` wrote."""
        id_, messages, question, draft = json.loads(line)
        return cls(id_, tuple(Message(*turn) for turn in messages), question, draft)


class Tokens(NamedTuple):
    """Tokens in and out, of a request or of many."""

    input: int
    output: int

    def plus(self, other: "Tokens") -> "Tokens":
        """The sum of both."""
        return Tokens(self.input + other.input, self.output + other.output)

    def less(self, other: "Tokens") -> "Tokens":
        """What is left without the other, never below zero."""
        return Tokens(max(0, self.input - other.input), max(0, self.output - other.output))


NOTHING = Tokens(0, 0)


def body_of(spec: LlmSpec, request: Request) -> dict[str, Any]:
    """The request's JSON as the endpoint takes it."""
    parameters = spec.parameters
    optional = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    body = {"model": spec.model, **{k: v for k, v in optional.items() if v is not None}}
    turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    if spec.provider == "anthropic":
        system = "\n\n".join(turn.content for turn in request.messages if turn.role == "system")
        body["messages"] = [turn for turn in turns if turn["role"] != "system"]
        body["max_tokens"] = parameters.max_tokens
        body |= {"system": system} if system else {}
        body |= {"stop_sequences": list(parameters.stop)} if parameters.stop else {}
    else:
        body["messages"] = turns
        own = "max_completion_tokens" if spec.base_url is None else "max_tokens"
        body[parameters.max_tokens_name or own] = parameters.max_tokens
        body |= {"stop": list(parameters.stop)} if parameters.stop else {}
        if parameters.seed is not None:
            body["seed"] = parameters.seed + request.draft
    return {**body, **parameters.extra}


def key_of(body: dict[str, Any], draft: int = 0) -> str:
    """SHA-256 of model, parameters and messages, in hex: where the reply is cached, and its
    `custom_id` in a batch (Anthropic takes 64 characters)."""
    whole = {"body": body, "draft": draft} if draft else {"body": body}
    return hashlib.sha256(_canonical(whole).encode("utf-8", "surrogatepass")).hexdigest()


def profile_of(spec: LlmSpec) -> str:
    """Digest of all that requests of these settings have in common: replies of one profile are
    cached together. A name such as `tuned` is another model at another address."""
    common = body_of(spec, Request("", ())) | ({"base_url": spec.base_url} if spec.base_url else {})
    return key_of({"provider": spec.provider, **common})[:16]


def most_tokens(body: dict[str, Any], max_tokens: int) -> Tokens:
    """What a request can cost at most. A token is at least one byte of UTF-8 in every byte-level
    tokenizer, so a prompt has no more tokens than bytes."""
    text = text_of(body)
    turns = len(body["messages"]) + 1
    return Tokens(len(text.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS * turns, max_tokens)


def text_of(body: dict[str, Any]) -> str:
    """All text of a prompt, for counting."""
    parts: Sequence[str] = [body.get("system", ""), *(m["content"] for m in body["messages"])]
    return "\n".join(part for part in parts if part)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
