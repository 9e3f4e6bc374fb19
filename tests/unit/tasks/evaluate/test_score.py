"""Answers of any origin: known scores, rows that hold no text, files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from thinktune.schema.errors import DataInvalid
from thinktune.schema.report import Verifier
from thinktune.schema.score import ScoreReport, ScoreRequest
from thinktune.tasks.evaluate.score import score, wilson


def scored(
    file: Path, verifier: Verifier | None = None, marker: str | None = None, **columns: str
) -> ScoreReport:
    names = {"answer": "answer", "reference": "reference"} | columns
    return score(ScoreRequest(file=str(file), verifier=verifier, marker=marker, **names))


def written(folder: Path, rows: list[Any], name: str = "a.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_known_scores(tmp_path: Path) -> None:
    answers = ["Final Answer: 4", "It is 5.", "<think>4</think>6", "four"]
    rows = [{"id": n, "answer": text, "reference": "4"} for n, text in enumerate(answers)]
    found = scored(written(tmp_path, rows), marker="Final Answer:")
    assert (found.verifier, found.rows, found.scored, found.correct) == ("number", 4, 4, 1)
    assert found.accuracy == 0.25
    assert [(row.id, row.extracted, row.correct) for row in found.verdicts] == [
        ("0", "4", True),
        ("1", "5", False),
        ("2", "6", False),
        ("3", None, False),
    ]


def test_rows_that_hold_no_text_are_counted_and_end_nothing(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"answer": "4", "reference": "4"},
        '{"answer": NaN, "reference": "4"}',
        {"answer": ["4"], "reference": "4"},
        {"answer": "4", "reference": None},
        {"reference": "4"},
        {"answer": "", "reference": "4"},
        {"answer": "<think>4", "reference": "4"},
        "broken",
        "[1]",
        "[" * 5000,
        '{"answer": 1' + "0" * 2000 + ', "reference": "4"}',
        '{"id": "\\ud800", "answer": "4 \\ud800", "reference": "4"}',
    ]
    found = scored(written(tmp_path, rows), "number")
    assert (found.rows, found.scored, found.correct) == (12, 4, 2)
    assert json.loads(found.model_dump_json())["verdicts"][-1]["id"] == "?"
    assert found.problems == {
        "not a JSON object": 3,
        "no text in the answer's column": 4,
        "no reference that can be checked": 1,
        "empty answer": 1,
        "thinking never ends": 1,
    }


def test_a_csv_with_names_of_its_own(tmp_path: Path) -> None:
    rows = ["said,gold", '"B, because",B', '"A or B",B']
    found = scored(written(tmp_path, rows, "a.csv"), "choice", answer="said", reference="gold")
    assert [row.correct for row in found.verdicts] == [True, False]
    assert found.problems == {"several options named": 1}


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a.txt", ["4"], "no kind of file that is read"),
        ("a.jsonl", [{"answr": "4", "reference": "4"}], "did you mean 'answr'"),
        ("a.jsonl", [], "no row has a column 'answer'"),
    ],
)
def test_files_that_cannot_be_judged(
    tmp_path: Path, name: str, rows: list[Any], message: str
) -> None:
    with pytest.raises(DataInvalid, match=message):
        scored(written(tmp_path, rows, name))
    with pytest.raises(DataInvalid, match="No such file"):
        scored(tmp_path / "none.jsonl")


def test_wilson_s_interval() -> None:
    """Values of the statsmodels package: proportion_confint(…, method="wilson")."""
    assert wilson(43, 326) == pytest.approx((0.09945, 0.17298), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
