"""Turns as datasets write them, and reasoning wherever it stands."""

import pytest

from thinktune.tasks.prep.conversations import (
    Said,
    is_conversation,
    one_reasoning,
    read_conversation,
    read_history,
)
from thinktune.text.conversation import Turn, Unusable

ASKED = {"role": "user", "content": "q"}


def answered(**turn: object) -> tuple[str | None, str]:
    (found,) = read_conversation([ASKED, {"role": "assistant", **turn}]).said
    assert isinstance(found, Said)
    return found.reasoning, found.answer


def refused(*turns: object) -> str:
    with pytest.raises(Unusable) as caught:
        read_conversation(list(turns))
    return caught.value.reason.text


def test_names_of_both_layouts_in_one_turn() -> None:
    turns = [
        {"role": "system", "value": "s"},
        {"from": "user", "content": "q"},
        # As Parquet has it: all keys in all rows.
        {"role": None, "content": None, "from": " GPT", "value": "a"},
    ]
    found = read_conversation(turns)
    assert found.system == "s"
    assert found.said == (Said((), "q", None, "a"),)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_and_inside(key: str) -> None:
    assert answered(content="a", **{key: "r"}) == ("r", "a")
    assert answered(content="<think>r  s</think>a", **{key: "r\ns\n"}) == ("r\ns", "a")
    assert answered(content="<think>\n\n</think>a", **{key: "r"}) == ("r", "a")
    with pytest.raises(Unusable, match="two different think parts"):
        answered(content="<think>other</think>a", **{key: "r"})
    with pytest.raises(Unusable, match=f"'{key}' is true or false, not text"):
        answered(content="a", **{key: True})


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
    assert read_conversation(whole).said == (Said((), "😀", None, "a"),)


ANSWERED = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "assistant", "content": "a", "function_call": {"name": "f"}},
        {"role": "user", "content": "r", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": "42"}]},
        {"from": "function_call", "value": "{}"},
    ],
)
def test_tools_in_each_dialect(turn: dict[str, object]) -> None:
    assert refused(ASKED, turn, ASKED, ANSWERED) == "tool turns are not supported"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "type 'image_url'"),
        ({"content": [{"type": "input_audio", "text": "q"}]}, "type 'input_audio'"),
        ({"content": [{"type": "text", "text": "q", "annotation": "n"}]}, "key 'annotation'"),
        ({"content": "q", "images": ["x.png"]}, "unknown key 'images' in a turn"),
        ({"content": "q", "timestamp": 7}, "unknown key 'timestamp' in a turn"),
        ({"content": {"text": "q"}}, "'content' is an object, not text"),
        ({"content": ["q", 7]}, "neither text nor an object"),
        ({"content": True}, "'content' is true or false, not text"),
        ({"content": "q\0"}, "a NUL character in 'content'"),
        ({"content": "q", "reasoning": "r"}, "reasoning in a turn that is not the assistant's"),
    ],
)
def test_parts_that_are_not_understood(turn: dict[str, object], reason: str) -> None:
    assert reason in refused({"role": "user", **turn}, ANSWERED)


def test_keys_that_say_nothing_and_keys_to_pass_over() -> None:
    turns = [{**ASKED, "name": None, "tool_calls": [], "images": "", "at": 7}, ANSWERED]
    assert read_conversation(turns, ignored_keys=("at",)).said == (Said((), "q", None, "a"),)


def test_weights_are_honored() -> None:
    assert "weight 0" in refused(ASKED, {**ANSWERED, "weight": 0})
    assert "a weight other than 0 and 1" in refused(ASKED, {**ANSWERED, "weight": 0.5})
    earlier = [ASKED, {**ANSWERED, "weight": 0}, ASKED, {**ANSWERED, "weight": 1}]
    assert len(read_conversation(earlier).said) == 1
    every = read_conversation(earlier, every=True).said
    assert [isinstance(one, Said) for one in every] == [False, True]


def test_details_of_the_reasoning() -> None:
    details = [{"type": "reasoning.text", "text": "r"}]
    assert answered(content="a", reasoning="r", reasoning_details=details) == ("r", "a")
    assert answered(content="a", reasoning_details=details) == ("r", "a")
    with pytest.raises(Unusable, match="encrypted or redacted"):
        answered(content="a", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}])
    with pytest.raises(Unusable, match="encrypted or redacted"):
        answered(content=[{"type": "redacted_thinking", "data": "x"}, "a"])
    assert answered(content=[{"text": "r", "thought": True}, {"text": "a"}]) == ("r", "a")


def test_where_system_turns_stand() -> None:
    system = {"role": "system", "content": "s"}
    assert read_conversation([system, system, ASKED, ANSWERED]).system == "s\n\ns"
    assert refused(ASKED, ANSWERED, system, ASKED, ANSWERED) == (
        "a system turn after the first question"
    )


def test_a_greeting_and_words_that_nobody_answers() -> None:
    assert refused(ANSWERED, ASKED, ANSWERED) == "turns do not alternate user, assistant"
    assert refused(ASKED, ASKED, ANSWERED) == "turns do not alternate user, assistant"
    assert read_conversation([ASKED, ANSWERED, ASKED, ASKED]).after == 2


def test_each_answer_with_what_was_said_before() -> None:
    turns = [ASKED, {**ANSWERED, "reasoning": "r"}, {**ASKED, "content": "p"}, ANSWERED]
    first, second = read_conversation(turns, every=True).said
    before = (Turn("user", "q"), Turn("assistant", "a"))
    assert first == Said((), "q", "r", "a")
    assert second == Said(before, "p", None, "a")
    assert read_conversation(turns).said == (second,)


def test_turns_in_two_columns() -> None:
    assert read_conversation([ASKED], [ANSWERED]).said == (Said((), "q", None, "a"),)


def test_pythons_text_of_a_list() -> None:
    with pytest.raises(Unusable, match="Python's text of a list") as caught:
        read_conversation("[{'role': 'user', 'content': 'q'}]")
    assert "json.dumps" in caught.value.reason.remedy


@pytest.mark.parametrize("value", [[["q", "<think>r</think>a"]], '[["q", "a"]]'])
def test_history(value: object) -> None:
    assert read_history(value) == (Turn("user", "q"), Turn("assistant", "a"))


@pytest.mark.parametrize("value", [None, float("nan"), "", []])
def test_no_history(value: object) -> None:
    assert read_history(value) == ()


@pytest.mark.parametrize("value", ["words", [["q"]], ["q", "a"], {"q": "a"}, 7, [["q", None]]])
def test_a_history_that_is_none(value: object) -> None:
    with pytest.raises(Unusable, match="history"):
        read_history(value)
