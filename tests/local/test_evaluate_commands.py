"""`thinktune evaluate score` and `thinktune compare`, as people call them."""

import json
from pathlib import Path

import pytest
from command import thinktune

from thinktune.store import commit, open_store


def test_answers_of_any_origin(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"answer": f"<think>{n}</think>\\boxed{{{n}}}", "reference": "3"} for n in range(8)]
    file.write_text("\n".join(map(json.dumps, rows)))
    told = thinktune("evaluate", "score", str(file), "--verifier", "math")
    assert told.code == 0, told.err
    assert told.out.startswith("1 of 8 right: 12.5% (95%: ")
    answered = thinktune("evaluate", "score", str(file), "--output", "json")
    found = json.loads(answered.out)
    assert (found["scored"], found["correct"]) == (8, 1)
    assert found["verdicts"][3] == {
        "id": "row 4",
        "extracted": "3",
        "correct": True,
        "problem": None,
    }
    missing = thinktune("evaluate", "score", str(file), "--answer", "said")
    assert (missing.code, "no row has a column 'said'" in missing.err) == (65, True)


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"file://{tmp_path}/store"
    for run, accuracy in (("one", 0.5), ("two", 0.75)):
        folder = tmp_path / run
        folder.mkdir()
        (folder / "report.json").write_text("{}")
        commit(
            open_store(url),
            f"runs/{run}/evaluate",
            folder,
            kind="evaluate",
            run=run,
            attempt="a",
            inputs={},
            task_sha256=None,
            metrics={"tuned_accuracy": accuracy, "base_accuracy": 0.25, "promoted": run == "two"},
            created="2026-01-01T00:00:00+00:00",
        )
    return url


def test_runs_beside_each_other(store: str) -> None:
    told = thinktune("compare", "one", "two", "--store", store)
    assert told.code == 0, told.err
    lines = [line.split() for line in told.out.splitlines()]
    assert ["accuracy", "0.5", "(0.25)", "0.75", "(0.25)"] in lines
    assert ["promoted", "no", "yes"] in lines
    one = thinktune("compare", "one", "--metric", "accuracy", "--store", store, "--output", "json")
    assert json.loads(one.out) == {"one": {"tuned_accuracy": 0.5, "base_accuracy": 0.25}}
    unknown = thinktune("compare", "one", "--metric", "acuracy", "--store", store)
    assert (unknown.code, "did you mean 'accuracy'" in unknown.err) == (64, True)
    missing = thinktune("compare", "one", "three", "--store", store)
    assert (missing.code, "run three has no evaluation" in missing.err) == (66, True)
