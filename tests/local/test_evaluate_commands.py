"""`thinktune evaluate` and `thinktune compare`, as people call them."""

import json
import os
from pathlib import Path

import openpyxl
import pytest
from command import thinktune
from evaluated_run import evaluated

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


def test_a_comparison_as_a_page(store: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    refused = thinktune("compare", "one", "--store", store, "--html", str(page))
    assert refused.code == 66
    assert "report.json: its format is None, this thinktune reads 3" in refused.err
    assert not page.exists()


def test_sheets_go_out_and_come_back(tmp_path: Path) -> None:
    replies = {f"{arm}-000/q{n}": {"rating": "4"} for arm in ("base", "tuned") for n in range(40)}
    url = evaluated(tmp_path, replies=replies).url
    told = thinktune(
        "evaluate", "sheet", "sums-1", "--store", url, "--raters", "2", "--questions", "99",
        cwd=tmp_path,
    )  # fmt: skip
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[:2] == ["sums-1/sheets/sums-1-1.xlsx", "sums-1/sheets/sums-1-2.xlsx"]
    assert lines[2] == (
        "80 answers to 40 questions (the evaluation has no more than 40), of base and tuned, in "
        "each"
    )
    assert lines[3].endswith("show it to no rater")
    files = [str(tmp_path / line) for line in lines[:2]]
    for file in files:
        book = openpyxl.load_workbook(file)
        for row in book.worksheets[0].iter_rows(min_row=2):
            row[-2].value = 3 + (row[-3].value or "").endswith(".")  # as only the tuned one ends
        book.worksheets[0]["E2"] = "\x0931"
        book.save(file)
    read = ("evaluate", "sheet", "sums-1", "--store", url, "--read", *files)
    told = thinktune(*read)
    assert told.code == 0, told.err
    assert "tuned against base: +1.00 (95%: +1.00 to +1.00), p < 0.001" in told.out
    assert "agreement of the people: α 1.00" in told.out
    assert f"{files[0]} row 2" in told.out
    report = json.loads(thinktune(*read, "--output", "json").out)
    assert report["problems"] == {"not from 1 to 5": 2}
    judged = thinktune("evaluate", "agreement", "sums-1", "--store", url, "--labels", files[0])
    assert judged.code == 0, judged.err
    assert "ratings: quadratic κ 0.00" in judged.out
    again = thinktune("evaluate", "sheet", "sums-1", "--store", url, cwd=tmp_path)
    assert (again.code, "may have ratings in it" in again.err) == (64, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--read"], "--read: no file is given; name the sheets that came back"),
        (["a.xlsx"], "a.xlsx: files are given, and nothing is to be read; add --read"),
        (["--keep"], "--keep: there is no report to keep; use it with --read"),
        (["--read", "a.xlsx", "--raters", "2"], "--raters: it says what to write"),
        (["--read", "a.xlsx", "--out", "x"], "--out: it says what to write"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], said: str) -> None:
    ended = thinktune("evaluate", "sheet", "sums-1", *arguments)
    assert (ended.code, said in ended.err) == (64, True), ended.err


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    """As on a machine that has the launcher alone: a finder that knows no openpyxl."""
    blocked = tmp_path / "openpyxl.py"
    blocked.write_text("raise ModuleNotFoundError('openpyxl')")
    url = evaluated(tmp_path).url
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    out = ("--store", url, "--out", str(tmp_path / "out"))
    ended = thinktune("evaluate", "sheet", "sums-1", *out, more={"PYTHONPATH": path})
    assert ended.code == 66
    assert "pip install 'thinktune[review]', or use .csv" in ended.err
    plain = thinktune(
        "evaluate", "sheet", "sums-1", *out, "--format", "csv", more={"PYTHONPATH": path}
    )
    assert plain.code == 0, plain.err
