"""Runs of the user's own file: known by its content, wherever it lies."""

from pathlib import Path

import pytest

from thinktune.launch.runs import Run, make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.errors import SpecInvalid

CATALOG = load_catalog()
STORE = "file:///nowhere"


def run_of(path: Path) -> Run:
    overrides = ["data.dataset=file", f"data.path={path}"]
    return make_run(load_recipe("demo", overrides, catalog=CATALOG), CATALOG, STORE)


def test_a_file_that_was_moved_is_the_same_run(tmp_path: Path) -> None:
    old, new, other = tmp_path / "a.jsonl", tmp_path / "b" / "c.jsonl", tmp_path / "other.jsonl"
    new.parent.mkdir()
    old.write_text("{}\n")
    new.write_text("{}\n")
    other.write_text("{} \n")
    before, after, differs = run_of(old), run_of(new), run_of(other)
    assert before.id == after.id != differs.id
    digests = [run.tasks["prep"].result_digest() for run in (before, after, differs)]
    assert digests[0] == digests[1] != digests[2]
    assert str(new) in after.tasks["prep"].canonical()


def test_an_evaluation_needs_questions() -> None:
    recipe = load_recipe("demo", ["data.split.test_rows=0"], catalog=CATALOG)
    with pytest.raises(SpecInvalid, match="no question to evaluate with; add"):
        make_run(recipe, CATALOG, STORE)
    assert make_run(recipe, CATALOG, STORE, until="train").id.startswith("demo-")
