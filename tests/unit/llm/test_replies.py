"""Reading what came back, in the forms that endpoints send it in."""

from typing import Any

import pytest

from thinktune.llm.faults import Denied, Key, Throttled, fault_of_status, retry_after_s
from thinktune.llm.replies import NotAReplyError, parse_body, read_answer
from thinktune.llm.requests import Tokens


def chat(finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}]}


def messages(*blocks: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    return {"content": list(blocks), "stop_reason": stop}


@pytest.mark.parametrize(
    ("body", "text", "thinking", "problem"),
    [
        (chat(content=" It is so. "), "It is so.", "", None),
        (chat(content="b", reasoning_content="a"), "b", "a", None),
        (chat(content="b", reasoning="a"), "b", "a", None),
        (chat(content=[{"type": "text", "text": "b"}]), "b", "", None),
        (chat(content="<think>a</think>b"), "b", "a", None),
        (chat(content="a</think>\n\nb"), "b", "a", None),
        (chat(content="<think>a"), "", "a", "truncated"),
        (chat(content="b", finish="length"), "", "", "truncated"),
        (chat(content=None, reasoning_content="a"), "", "a", "truncated"),
        (chat(content="", reasoning="a", finish="length"), "", "a", "truncated"),
        (chat(content=""), "", "", "empty"),
        (chat(content="\u200b \n"), "", "", "empty"),
        (chat(content=None), "", "", "empty"),
        (chat(content="\ud83d"), "", "", "not_text"),
        (chat(content=None, refusal="I will not."), "", "", "refused"),
        (chat(content="", finish="content_filter"), "", "", "refused"),
        (chat(content=None, tool_calls=[{}], finish="tool_calls"), "", "", "not_text"),
    ],
)
def test_openai(body: dict[str, Any], text: str, thinking: str, problem: str | None) -> None:
    answer = read_answer("openai", body)
    assert (answer.text, answer.thinking, answer.problem) == (text, thinking, problem)


@pytest.mark.parametrize(
    ("body", "text", "thinking", "problem"),
    [
        (messages({"type": "text", "text": "b"}), "b", "", None),
        (
            messages({"type": "thinking", "thinking": "a"}, {"type": "text", "text": "b"}),
            "b",
            "a",
            None,
        ),
        (messages({"type": "thinking", "thinking": "a"}), "", "a", "truncated"),
        (messages({"type": "text", "text": "b"}, stop="max_tokens"), "", "", "truncated"),
        (messages(stop="refusal"), "", "", "refused"),
        (messages(), "", "", "empty"),
        (messages({"type": "tool_use"}, stop="tool_use"), "", "", "not_text"),
    ],
)
def test_anthropic(body: dict[str, Any], text: str, thinking: str, problem: str | None) -> None:
    answer = read_answer("anthropic", body)
    assert (answer.text, answer.thinking, answer.problem) == (text, thinking, problem)


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b'{"a": "caf\xc3', b'{"a": 1', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_body(raw: bytes) -> None:
    with pytest.raises(NotAReplyError):
        parse_body(raw)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{}]}, {"error": "x"}])
def test_what_is_no_reply(body: dict[str, Any]) -> None:
    with pytest.raises(NotAReplyError):
        read_answer("openai", body)
    with pytest.raises(NotAReplyError):
        read_answer("anthropic", body)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Tokens(3, 4)),
        (
            {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5},
            Tokens(8, 4),
        ),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": -3, "completion_tokens": 4}, None),
        ({"prompt_tokens": "3", "completion_tokens": 4}, None),
        ({"prompt_tokens": True, "completion_tokens": 4}, None),
        (None, None),
    ],
)
def test_usage(usage: Any, tokens: Tokens | None) -> None:
    assert read_answer("openai", {**chat(content="b"), "usage": usage}).usage == tokens


def test_when_to_come_again() -> None:
    assert retry_after_s({"retry-after": "300"}) == 300
    assert retry_after_s({"retry-after": "0.5"}) == 0.5
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert (retry_after_s({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}) or 0) > 1e9
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None


def test_faults_are_told_without_the_key_and_without_control_characters() -> None:
    key = Key("sk-a+b/c")
    said = {"error": {"message": "\x1b[31mno sk-a+b/c nor sk-a%2Bb%2Fc\n" + "x" * 999}}
    fault = fault_of_status(400, said, {}, key, None)
    assert isinstance(fault, Denied)
    assert fault.what.startswith("HTTP 400 ([31mno [key] nor [key] xx") and len(fault.what) < 350
    assert "sk-a" not in repr(key) + str(key)
    assert isinstance(fault_of_status(429, "busy", {}, key, None), Throttled)
