"""Rows to examples under a recipe, and what is said when none is left."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny import tiny_entry

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.errors import DataInvalid
from thinktune.schema.recipe import DataSpec
from thinktune.schema.stages import PrepTask
from thinktune.store import open_store
from thinktune.tasks.prep import stage
from thinktune.tasks.prep.card import Card
from thinktune.tasks.prep.rows import Example
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Reason

Row = dict[str, object]


def examples(folder: Path, rows: list[Row], **data: object) -> tuple[list[Example], Counter[str]]:
    path = folder / "own.jsonl"
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    spec = {"dataset": "file", "path": str(path), "require_reasoning": False, **data}
    url = f"file://{folder}/store"
    task = PrepTask(
        run="r",
        store=url,
        model_name="tiny",
        model=tiny_entry(),
        dataset=DatasetEntry(license="x", format="columns", description="x"),
        data=DataSpec.model_validate(spec),
    )
    store = open_store(url)
    context = Context(store, "a", Reporter(store, "r", "prep", "a"), Stop())
    card = Card(source="s", model="tiny")
    with open_source(task, context) as source:
        found, _ = stage._examples(task, source, card, context)
    return found, card.dropped


def rows_of(count: int) -> list[Row]:
    return [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(count)]


def test_a_row_without_its_columns_is_dropped(tmp_path: Path) -> None:
    rows = [{"question": "only"}, *rows_of(150), {"answer": "only"}]
    found, dropped = examples(tmp_path, rows)
    assert len(found) == 150
    assert dropped == {"no column 'answer'": 1, "no column 'question'": 1}


def test_a_column_that_the_first_row_lacks(tmp_path: Path) -> None:
    rows = rows_of(150)
    rows[7]["id"] = rows[8]["id"] = "x"
    rows[140]["reasoning"] = "r"
    rows[149]["level"] = "hard"
    found, _ = examples(tmp_path, rows)
    assert [e.id for e in found[7:9]] == ["x", "x#2"]
    assert found[140].reasoning == "r"
    assert len({e.id for e in found}) == 150
    found, dropped = examples(tmp_path, rows, filters=[{"column": "level", "any_of": ["hard"]}])
    assert (len(found), dropped) == (1, {"filter on level": 149})


def test_the_same_question_twice_has_two_ids(tmp_path: Path) -> None:
    found, _ = examples(tmp_path, rows_of(2) * 2, deduplicate=False)
    assert [e.id for e in found[2:]] == [f"{e.id}#2" for e in found[:2]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"filters": [{"column": "anser", "not_empty": True}]}, "did you mean 'answer'"),
        ({"balance": {"column": "level", "values": ["x"]}}, "no column 'level' to balance by"),
        ({"columns": {"id": "quesion"}}, "did you mean 'question'"),
    ],
)
def test_a_column_that_no_row_has(tmp_path: Path, data: dict[str, object], said: str) -> None:
    with pytest.raises(DataInvalid, match=said):
        examples(tmp_path, rows_of(3), **data)


def test_a_file_of_blank_lines(tmp_path: Path) -> None:
    filters = [{"column": "level", "not_empty": True}]
    with pytest.raises(DataInvalid, match="the dataset has no rows"):
        examples(tmp_path, [], filters=filters)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "answer": "<think>r</think>a", "reasoning": "s"}, "in one place"),
        ({"question": "q", "answer": "<think>r"}, "one <think>…</think>, closed"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "conversations that use tools"),
        ({"messages": [{"role": "user", "content": "x"}]}, "turns are by user and assistant"),
        ({"messages": "x"}, "map data.columns.conversation to a list"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "turns are by user and assistant"),
        ({"messages": '[{"role": "user", "content": "\\ud83d"}]'}, "whole characters only"),
        ({"question": "q", "answer": "a <think>r</think>"}, "one <think>…</think>, closed"),
        ({"question": "q", "answer": "a", "reasoning": "<think>r</think>x"}, "map the right one"),
        ({"question": "", "answer": "a"}, "check data.format and data.columns"),
    ],
)
def test_the_remedy_fits_the_reason(tmp_path: Path, row: Row, said: str) -> None:
    with pytest.raises(DataInvalid, match="none of 1 rows is left") as caught:
        examples(tmp_path, [row])
    assert said in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"require_reasoning": True}, "set data.require_reasoning=false"),
        ({"filters": [{"column": "answer", "matches": "no"}]}, "loosen data.filters"),
    ],
)
def test_the_remedy_fits_what_the_recipe_asks_for(
    tmp_path: Path, data: dict[str, object], said: str
) -> None:
    with pytest.raises(DataInvalid, match="none of 3 rows is left") as caught:
        examples(tmp_path, rows_of(3), **data)
    assert said in caught.value.remedy


def test_the_remedy_is_that_of_the_most_frequent_reason() -> None:
    card = Card(source="s", model="tiny")
    card.drop(Reason("rare", "do this"))
    card.drop(Reason("frequent", "do that"), 2)
    card.drop(Reason("absent", "do nothing"), 0)
    assert card.remedy() == "do that"
    assert card.dropped == {"rare": 1, "frequent": 2}
