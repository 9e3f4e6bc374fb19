"""What is said wins, what is seen is told, and what contradicts itself is refused."""

from pathlib import Path
from typing import Any

import pytest
from reading import OWN, Row, read, written

from thinktune.schema.catalog import ColumnMap, DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.tasks.prep.recognition import Layout, recognize

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def layout(*rows: Row, entry: DatasetEntry | None = None, **data: Any) -> Layout:
    own = {"dataset": "file", "path": "own.jsonl"} if entry is None else {"dataset": "known"}
    spec = DataSpec.model_validate({**own, **data})
    return recognize(rows, spec, entry or OWN, "own.jsonl")


def roles(*rows: Row, **data: Any) -> dict[str, str]:
    return layout(*rows, **data).used


def test_columns_of_known_names() -> None:
    assert roles({"Prompt": "q", "completion": "a"}) == {
        "question": "Prompt",
        "answer": "completion",
    }
    assert roles({"problem": "q", "solution": "a", "reasoning_content": "r"}) == {
        "question": "problem",
        "answer": "solution",
        "reasoning": "reasoning_content",
    }
    found = layout({"question": "q", "answer": "a", "meta": 1})
    assert found.line() == (
        "rows are read as columns (recognized): question, answer; not used: 'meta'"
    )
    for row in ({"question": "q", "answer": "a", "response": "b"}, {"answer": "a", "Answer": "b"}):
        with pytest.raises(DataInvalid, match="could each be the answer"):
            layout({"question": "q", **row})
    assert roles({"Instruction": "q", "Input": "i", "response": "a"}) == {
        "question": "Instruction",
        "input": "Input",
        "answer": "response",
    }
    with pytest.raises(DataInvalid, match=r"could each be the answer; say which: data\.columns\."):
        layout({"question": "q", "response": "a", "solution": "b"})
    with pytest.raises(DataInvalid, match=r"no column 'question'.*; set data\.columns\.question"):
        layout({"c0": "q", "c1": "a"})


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation", "prompt"])
def test_a_conversation_is_known_by_its_shape(name: str) -> None:
    turns = '[{"role": "user", "value": "q"}, {"from": "gpt", "content": "a"}]'
    row: Row = {name: turns, "question": "?", "answer": "!"}
    assert roles(row)["conversation"] == name
    others = {"messages": 2, "conversations": "c-17", "conversation": None}
    assert roles({**others, name: turns})["conversation"] == name
    if name != "prompt":
        assert roles({**row, name: 17})["question"] == "question"


def test_turns_in_prompt_and_completion() -> None:
    found = roles({"prompt": TURNS[:1], "completion": TURNS[1:]})
    assert found == {"conversation": "prompt", "completion": "completion"}


def test_what_is_said_wins_over_a_conversation() -> None:
    row: Row = {"conversations": TURNS, "instruction": "q", "response": "a"}
    said = {"question": "instruction", "answer": "response"}
    assert roles(row, columns=said) == said
    assert roles(row, prompt="Task: {question}") == {
        "question": "instruction",
        "answer": "response",
    }
    assert roles(row, format="columns")["question"] == "instruction"
    assert roles(row, columns={"conversation": "conversations"})["conversation"] == "conversations"
    assert layout(row).line().endswith("not used: 'instruction', 'response'")


def test_what_is_said_wins_over_the_catalog() -> None:
    turns = DatasetEntry(
        license="x", format="sharegpt", description="x", columns=ColumnMap(conversation="c", id="n")
    )
    row: Row = {"c": TURNS, "q": "q", "a": "a", "n": 1}
    assert roles(row, entry=turns) == {"conversation": "c", "id": "n"}
    said = {"question": "q", "answer": "a"}
    assert roles(row, entry=turns, columns=said) == {"id": "n", **said}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"format": "messages", "columns": {"question": "q"}}, "data.format=messages reads turns"),
        ({"format": "columns", "columns": {"conversation": "c"}}, "data.format=columns reads"),
        ({"columns": {"conversation": "c", "answer": "a"}}, "leave one of them out"),
        ({"columns": {"completion": "c"}}, "without the turns before it"),
        ({"format": "messages", "prompt": "Task: {question}"}, "is a pattern for columns"),
        ({"format": "messages", "answer": "{answer} {summary}"}, "is a pattern for columns"),
        (
            {"prompt": "Task: {question}", "columns": {"options": "o"}},
            "data.prompt does not show {options}",
        ),
    ],
)
def test_settings_that_contradict_each_other(data: Row, said: str) -> None:
    row: Row = {"messages": TURNS, "c": TURNS, "q": "q", "a": "a", "o": ["x"], "question": "q"}
    with pytest.raises(SpecInvalid) as caught:
        layout({**row, "answer": "a"}, **data)
    assert said in str(caught.value)


def test_a_pattern_for_a_conversation_is_never_ignored(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="is a pattern for columns, and rows are"):
        read(written(tmp_path, [{"messages": TURNS}]), prompt="Task: {question}")


@pytest.mark.parametrize("values", [["on", "off"], [True, False], ["low", "high"], [0, 1]])
def test_a_switch_is_no_reasoning(values: list[Any]) -> None:
    found = layout(*({"question": "q", "answer": "a", "reasoning": value} for value in values))
    assert "reasoning" not in found.used
    assert found.line().endswith("'reasoning' holds a switch, not reasoning")


def test_roles_that_the_recipe_has_a_use_for() -> None:
    row: Row = {"question": "q", "answer": "a", "summary": "s", "options": ["x"]}
    assert "summary" not in roles(row)
    assert roles(row, answer="{answer} {summary}")["summary"] == "summary"
    assert roles(row)["options"] == "options"
    assert "options" not in roles(row, prompt="Task: {question}")
    assert roles(row, prompt="{question} {options}")["options"] == "options"


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(DataInvalid, match=r"correct data\.columns\.id; did you mean 'question'"):
        layout({"question": "q", "answer": "a"}, columns={"id": "quesion"})
    with pytest.raises(DataInvalid, match="did you mean 'messages'"):
        layout({"messages": TURNS}, columns={"conversation": "message"})


def test_a_column_that_only_some_rows_have() -> None:
    rows: list[Row] = [{"question": "q", "answer": "a"}, {"n": 1}, {"s": "x"}]
    assert layout(*rows, columns={"summary": "s", "id": "n"}).used["id"] == "n"


def test_many_columns_are_named_in_part() -> None:
    row: Row = {"question": "q", "answer": "a", **{f"c{n}": n for n in range(300)}}
    assert layout(row).line().endswith("'c11', 288 more")
