"""Rows after reports of other tools, by kind: learned as they are meant, or dropped and counted."""

from pathlib import Path
from typing import Any

import pytest
from reading import Read, Row, read, written

from thinktune.schema.errors import DataInvalid, SpecInvalid, ThinktuneError

T = "<think>r</think>"
U: Row = {"role": "user", "content": "q"}
A: Row = {"role": "assistant", "content": f"{T}a"}
EARLIER: list[Row] = [U, {"role": "assistant", "content": "EARLIER"}, {**U, "content": "q2"}]


def read_rows(folder: Path, *rows: Row, **data: Any) -> Read:
    return read(written(folder, list(rows)), **data)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": EARLIER, "answer": f"{T}a"},
        {"prompt": EARLIER, "response": f"{T}a"},
        {"messages": EARLIER, "completion": [A]},
        {"prompt": [U], "completion": f"{T}a"},
        {"conversations": EARLIER, "output": A},
    ],
)
def test_an_answer_beside_an_open_conversation(tmp_path: Path, row: Row) -> None:
    found = read_rows(tmp_path, row)
    assert [(e.reasoning, e.answer) for e in found.examples] == [("r", "a")]
    assert found.turns_after == 0


@pytest.mark.parametrize("prompt", [EARLIER, [U]])
def test_answers_to_choose_from(tmp_path: Path, prompt: list[Row]) -> None:
    row = {"prompt": prompt, "chosen": [A], "rejected": [A]}
    with pytest.raises(DataInvalid, match=r"data\.columns\.completion=chosen"):
        read_rows(tmp_path, row)
    said = {"conversation": "prompt", "completion": "chosen"}
    assert read_rows(tmp_path, row, columns=said).examples[0].answer == "a"


@pytest.mark.parametrize("name", ["train", "trainable", "loss", "learn", "training", "weight"])
@pytest.mark.parametrize("value", [False, 0])
def test_answers_that_are_not_to_be_learned(tmp_path: Path, name: str, value: object) -> None:
    turn = read_rows(tmp_path, {"messages": [U, {**A, name: value}]})
    assert turn.dropped == {"an answer of weight 0, which is not to be learned": 1}
    row = read_rows(tmp_path, {"messages": [U, A], name: value})
    assert row.dropped == {f"{name} 0: not to be learned": 1}
    assert len(read_rows(tmp_path, {"messages": [U, A], name: 1}).examples) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"images": ["x.png"]}, "'images' beside the text"),
        ({"tools": '[{"name": "f"}]'}, "tools beside the text ('tools')"),
        ({"label": False}, "labeled as an answer not to give"),
        ({"kto_tag": False}, "labeled as an answer not to give"),
    ],
)
def test_what_stands_beside_the_text(tmp_path: Path, row: Row, reason: str) -> None:
    whole = {"prompt": "q", "completion": f"{T}a", **row}
    assert read_rows(tmp_path, whole).dropped == {reason: 1}
    assert len(read_rows(tmp_path, whole, ignore_columns=list(row)).examples) == 1


@pytest.mark.parametrize(
    "late", [{"system": "s"}, {"history": [["q", "a"]]}, {"reasoning": "r"}, {"Options": ["x"]}]
)
def test_a_column_that_comes_late(tmp_path: Path, late: Row) -> None:
    rows = [{"question": f"{n}?", "answer": f"{T}{n}"} for n in range(120)]
    found = read_rows(tmp_path, *rows, {**rows[0], **late})
    (name,) = late
    assert found.dropped == {f"a column '{name}', which the first rows lack": 1}
    assert (
        len(read_rows(tmp_path, *rows, {**rows[0], **late}, ignore_columns=[name]).examples) == 121
    )


def test_a_label_is_no_reasoning(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"{T}{n}", "reasoning": "deductive"} for n in range(9)]
    assert read_rows(tmp_path, *rows).line.endswith("'reasoning' holds a label, not reasoning")
    switched = [
        {**row, "reasoning": "on", "reasoning_content": f"{n}"} for n, row in enumerate(rows)
    ]
    assert "reasoning from 'reasoning_content'" in read_rows(tmp_path, *switched).line
    story = [{**row, "history": "65 years old"} for row in rows]
    assert len(read_rows(tmp_path, *story).examples) == 9


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([U, {"role": "assistant", "content": None}, U, A], "an earlier turn without text"),
        ([{**U, "content": "\u200b"}, A, U, A], "an earlier turn without text"),
        ([{**U, "value": "other"}, A], "a turn that says two things"),
        ([{**U, "from": "gpt"}, A], "a turn that says two things"),
        ([U, {**A, "reasoning": "off"}], "a switch where reasoning should be"),
        (
            [U, {**A, "content": [{"type": "text", "text": "a", "thinking": "hidden"}]}],
            "a part of a content that says two things",
        ),
        ([U, {"content": "a"}], "a turn without role"),
    ],
)
def test_turns_that_lose_something(tmp_path: Path, turns: list[Row], reason: str) -> None:
    assert read_rows(tmp_path, {"messages": turns}).dropped == {reason: 1}


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "A. x\nB. y"),
        ([{"id": "1", "content": "x"}], "1. x"),
        ({"text": ["x", "y"], "label": ["A", "B"]}, "A. x\nB. y"),
        ('{"A": "x"}', "A. x"),
    ],
)
def test_options_of_other_tools(tmp_path: Path, options: object, listed: str) -> None:
    row = {"question": "q", "answer": f"{T}A", "options": options}
    assert read_rows(tmp_path, row).examples[0].options == listed


def test_options_that_are_not_understood(tmp_path: Path) -> None:
    row = {"question": "q", "answer": f"{T}A", "options": [{"name": "x"}]}
    assert read_rows(tmp_path, row).dropped == {"options that are not understood": 1}
    numbered = {"question": "q", "answer": 0, "choices": ["x", "y"], "reasoning": "r s"}
    reason = "the answer is a number, and the options have letters"
    assert read_rows(tmp_path, numbered).dropped == {reason: 1}


@pytest.mark.parametrize("answer", ["['Paris']", "{'text': ['Paris'], 'start': [3]}"])
def test_pythons_text_of_an_answer(tmp_path: Path, answer: str) -> None:
    found = read_rows(tmp_path, {"question": "q", "answer": answer})
    assert found.dropped == {"'answer' is Python's text of a list or object": 1}
    kept = read_rows(tmp_path, {"question": "q", "answer": '{"a": [1]} and [see above]'})
    assert len(kept.examples) == 1


@pytest.mark.parametrize("text", ["The tag </think> closes it.", "Use `</think>` at the end."])
def test_a_mark_inside_a_sentence(tmp_path: Path, text: str) -> None:
    found = read_rows(tmp_path, {"question": "q", "answer": text})
    assert found.dropped == {"a closing think mark inside a sentence": 1}


@pytest.mark.parametrize("nothing", ["\u200b\u200d", "\ufeff", "\x07", "\u3164", "\u2800\ufe0f"])
def test_an_answer_without_ink(tmp_path: Path, nothing: str) -> None:
    assert read_rows(tmp_path, {"question": "q", "answer": T + nothing}).dropped == {
        "nothing behind the think part": 1
    }
    found = read_rows(tmp_path, {"question": "q", "answer": f"<think>{nothing}</think>a"})
    assert found.examples[0].reasoning is None


def test_end_tokens_in_every_turn(tmp_path: Path) -> None:
    turns = [{**turn, "content": f"{turn['content']}<|im_end|>\u200b"} for turn in (U, A, U, A)]
    found = read_rows(tmp_path, {"messages": turns})
    (example,) = found.examples
    assert [turn.text for turn in example.before] == ["q", "a"]
    assert (example.question, example.answer, found.end_tokens) == ("q", "a", 4)
    tag = read_rows(tmp_path, {"question": "q", "answer": f"{T}Use <s>old</s>"})
    assert tag.examples[0].answer == "Use <s>old</s>"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"columns": {"question": "answer", "answer": "answer"}}, "plays the role"),
        ({"columns": {"conversation": "messages", "history": "question"}}, "leave it out"),
    ],
)
def test_settings_that_would_be_ignored(tmp_path: Path, data: Row, said: str) -> None:
    with pytest.raises(SpecInvalid, match=said):
        read_rows(tmp_path, {"question": "q", "answer": "a", "messages": [U, A]}, **data)


@pytest.mark.parametrize("name", ["dialog", "chat", "Messages"])
def test_turns_in_a_column_of_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ThinktuneError, match=rf"data\.columns\.conversation={name}"):
        read_rows(tmp_path, {name: [U, A]})
    assert len(read_rows(tmp_path, {name: [U, A]}, columns={"conversation": name}).examples) == 1
