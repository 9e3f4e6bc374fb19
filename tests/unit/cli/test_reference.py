"""`thinktune compare RUN --reference NAME` on a run that is finished."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from thinktune.cli.main import cli
from thinktune.schema.errors import InputMissing
from thinktune.store import commit, open_store

METRICS = {
    "questions": 200,
    "base_label_precision": 0.5,
    "tuned_label_precision": 0.875,
    "label_precision_p": 0.0123,
    "base_judge_rating": 2.5,
    "tuned_judge_rating": None,
}


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"file://{tmp_path}/store"
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "report.json").write_text('{"format": 1}')
    commit(
        open_store(url),
        "runs/audit/evaluate",
        folder,
        kind="evaluate",
        run="audit",
        attempt="a",
        inputs={},
        task_sha256=None,
        metrics=METRICS,
        created="2026-01-01T00:00:00+00:00",
    )
    return url


def test_the_published_table_stands_beside_the_runs(store: str) -> None:
    words = ["compare", "audit", "--reference", "financial-audit", "--store", store]
    told = CliRunner().invoke(cli, words, catch_exceptions=False)
    lines = [line.split() for line in told.output.splitlines()]
    assert ["Precision", "61.0%", "89.0%", "50.0%", "87.5%", "0.012"] in lines
    assert ["Recall", "54.0%", "84.0%", "–", "–"] in lines
    assert "2.8" in told.output
    assert "what differs:" in told.output
    found = json.loads(CliRunner().invoke(cli, [*words, "--output", "json"]).output)
    figures = found["runs"]["audit"]["figures"]
    assert figures[0]["reference"] == [0.61, 0.89]
    assert figures[0]["run"] == [0.5, 0.875]
    assert found["reference"]["recipe"] == "qwen-32b-judged"


def test_a_run_without_an_evaluation(store: str) -> None:
    words = ["compare", "other", "--reference", "math", "--store", store]
    with pytest.raises(InputMissing, match="run other has no evaluation") as caught:
        CliRunner().invoke(cli, words, catch_exceptions=False)
    assert caught.value.exit_code == 66
    unknown = CliRunner().invoke(cli, ["compare", "audit", "--reference", "maths"])
    assert unknown.exit_code == 2
