"""Layouts that datasets come in, brought to one shape."""

import pytest

from thinktune.spec.catalog import ColumnMap, Format
from thinktune.spec.errors import DataInvalid
from thinktune.tasks.prep.rows import (
    Example,
    Unusable,
    check_columns,
    detect_format,
    question_key,
    split_think,
    to_example,
)

THOUGHT = "<think>\nfirst\n</think>\n\nanswer"
NONE = ColumnMap()


def example(
    row: dict[str, object], layout: Format | None = None, map_: ColumnMap = NONE
) -> Example:
    return to_example(row, layout or detect_format(row), map_)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": THOUGHT},
        {"instruction": "q", "input": "", "output": THOUGHT},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": THOUGHT}]},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": THOUGHT},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "answer", "reasoning_content": "first"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "answer", "thinking": "first\n"},
            ]
        },
        {
            "messages": '[{"role":"user","content":"q"},{"role":"assistant","content":"'
            + THOUGHT.replace("\n", "\\n")
            + '"}]'
        },
    ],
)
def test_layouts_come_to_the_same(row: dict[str, object]) -> None:
    found = example(row)
    assert (found.question, found.reasoning, found.answer) == ("q", "first", "answer")


def test_mapped_columns() -> None:
    columns = ColumnMap(question="Question", reasoning="Complex_CoT", answer="Response", id="n")
    row = {"Question": "q", "Complex_CoT": "r", "Response": "a", "n": 7}
    found = example(row, "columns", columns)
    assert (found.id, found.reasoning, found.answer) == ("7", "r", "a")


def test_alpaca_joins_instruction_and_input() -> None:
    assert example({"instruction": "do", "input": "this", "output": "x"}).question == "do\n\nthis"


def test_earlier_turns_keep_no_reasoning() -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": THOUGHT},
        {"role": "user", "content": "trailing"},
    ]
    found = example({"messages": turns})
    assert found.system == "be brief"
    assert [(t.role, t.text) for t in found.before] == [("user", "q1"), ("assistant", "answer")]
    assert found.question == "q2"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": " "}, "empty answer"),
        ({"question": None, "answer": "a"}, "empty question"),
        ({"question": "q", "answer": "<think>never ends"}, "unfinished think part"),
        ({"question": "q", "answer": THOUGHT + THOUGHT}, "more than one think part"),
        ({"messages": [{"role": "user", "content": "q"}]}, "turns do not alternate"),
        ({"messages": [{"role": "wizard", "content": "q"}]}, "unknown role 'wizard'"),
        ({"messages": "not a list"}, "not a list of turns"),
        ({"messages": None}, "not a list of turns"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "turns do not alternate"),
    ],
)
def test_unusable_rows_say_why(row: dict[str, object], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        example(row)


def test_no_reasoning_is_none() -> None:
    assert example({"question": "q", "answer": "a"}).reasoning is None
    assert split_think("r</think>a") == ("r", "a")


def test_options_are_listed() -> None:
    row = {"question": "q", "answer": "a", "options": {"A": "x", "B": "y"}}
    assert example(row, "columns", ColumnMap(options="options")).options == "A. x\nB. y"


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(DataInvalid, match="no column 'Question', which plays the role 'question'"):
        check_columns({"question": ""}, "columns", ColumnMap(question="Question"), "f.jsonl")
    with pytest.raises(DataInvalid, match="did you mean 'messages'"):
        check_columns({"messages": []}, "messages", ColumnMap(conversation="message"), "f.jsonl")
    with pytest.raises(DataInvalid, match="no column 'answer'"):
        check_columns({"question": "q", "text": "t"}, "columns", NONE, "f.jsonl")


def test_the_same_question_has_one_key() -> None:
    one = example({"question": "What is  2+2?", "answer": "4"})
    two = example({"question": "what is 2+2", "answer": "four"})
    other = example({"question": "what is 2+3", "answer": "5"})
    assert question_key(one) == question_key(two) != question_key(other)
