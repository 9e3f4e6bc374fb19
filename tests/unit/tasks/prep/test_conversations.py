"""Turns as datasets write them, and reasoning wherever it stands."""

import pytest

from thinktune.tasks.prep.conversations import is_conversation, one_reasoning, read_conversation
from thinktune.text.conversation import Unusable

ASKED = {"role": "user", "content": "q"}


def answered(**turn: object) -> tuple[str | None, str]:
    found = read_conversation([ASKED, {"role": "assistant", **turn}])
    return found.reasoning, found.answer


def test_names_of_both_layouts_in_one_turn() -> None:
    turns = [
        {"role": "system", "value": "s"},
        {"from": "user", "content": "q"},
        # As Parquet has it: all keys in all rows.
        {"role": None, "content": None, "from": " GPT", "value": "a"},
    ]
    found = read_conversation(turns)
    assert (found.system, found.question, found.answer) == ("s", "q", "a")


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_and_inside(key: str) -> None:
    assert answered(content="a", **{key: "r"}) == ("r", "a")
    assert answered(content="<think>r  s</think>a", **{key: "r\ns\n"}) == ("r\ns", "a")
    assert answered(content="<think>\n\n</think>a", **{key: "r"}) == ("r", "a")
    with pytest.raises(Unusable, match="two different think parts"):
        answered(content="<think>other</think>a", **{key: "r"})
    assert answered(content="a", **{key: True}) == (None, "a")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "r"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
        {"type": "thinking", "thinking": "r", "text": None},
        {"type": "reasoning", "text": "r"},
        {"type": "reasoning", "text": "<think>r</think>"},
    ],
)
def test_parts_of_reasoning(part: dict[str, object]) -> None:
    said = {"type": "text", "text": "a"}
    assert answered(content=[part, said]) == ("r", "a")
    assert answered(content=[part, "a"]) == ("r", "a")
    assert answered(content=[part, said], reasoning="r") == ("r", "a")
    with pytest.raises(Unusable, match="text before the think part"):
        answered(content=[said, part])


def test_a_reasoning_that_goes_on() -> None:
    with pytest.raises(Unusable, match="text after the think part of the reasoning"):
        one_reasoning(["<think>r</think>a"], "a")


@pytest.mark.parametrize("role", ["tool", "function", "observation", "Tool"])
def test_tool_turns(role: str) -> None:
    turns = [ASKED, {"role": role, "content": "42"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(Unusable, match=r"^tool turns are not supported$"):
        read_conversation(turns)


def test_what_a_conversation_looks_like() -> None:
    assert is_conversation([ASKED])
    assert is_conversation('[{"from": "human", "value": "q"}]')
    for other in ([], ["q"], [{"text": "q"}], "c-17", "[" * 100_000, 17, None):
        assert not is_conversation(other)


def test_json_text_that_is_no_text() -> None:
    with pytest.raises(Unusable, match="half a surrogate pair"):
        read_conversation(r'[{"role": "user", "content": "\ud83d"}]')
    whole = r'[{"role":"user","content":"\ud83d\ude00"},{"role":"assistant","content":"a"}]'
    assert read_conversation(whole).question == "😀"
