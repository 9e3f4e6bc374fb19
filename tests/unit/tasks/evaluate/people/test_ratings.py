"""Ratings from filled sheets: known figures, what programs save, rows that do not count."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from evaluated_run import evaluated

from thinktune.schema.errors import DataInvalid, InputMissing, SpecInvalid
from thinktune.schema.ratings import RatingSheetRequest, RatingsReport, RatingsRequest, SheetKey
from thinktune.store import Store
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.people.ratings import read
from thinktune.tasks.evaluate.people.sheet import write

Rate = Callable[[str, int], object]
"""What a person writes for an arm's answer to a question, by its number; None leaves it blank."""


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 250)


class Sheets:
    """A run with sheets, and people who fill them."""

    def __init__(self, folder: Path, *, raters: int = 1, run: str = "sums-1", **given: object):
        self.folder, self.run = folder, run
        self.store: Store = evaluated(folder, run, **given)  # type: ignore[arg-type]
        request = RatingSheetRequest(
            run=run, store=self.store.url, folder=str(folder / run), kind="xlsx", questions=40,
            raters=raters, arms=(), seed=0, reasoning=False,
        )  # fmt: skip
        self.request = request
        self.files = write(request).files
        (info,) = self.store.list(f"runs/{run}/evaluate/sheets/keys")
        self.key_file = self.store.get(info.key)
        self.key = SheetKey.parse(json.loads(self.key_file), info.key)

    def filled(self, rate: Rate, number: int = 1) -> str:
        """A rater's sheet, filled with openpyxl."""
        file = self.files[number - 1]
        book = openpyxl.load_workbook(file)
        for id_, *_, rating, comment in book.worksheets[0].iter_rows(min_row=2):
            about = self.key.rows[id_.value]
            rating.value = rate(about.arm, int(about.question.removeprefix("q")))
            comment.value = "=1+1"
        book.save(file)
        return file

    def saved_as_csv(self, file: str, name: str, delimiter: str, encoding: str) -> str:
        """What Excel or LibreOffice would make of a filled sheet."""
        path = self.folder / name
        rows = openpyxl.load_workbook(file).worksheets[0].iter_rows(values_only=True)
        with path.open("w", encoding=encoding, newline="") as opened:
            csv.writer(opened, delimiter=delimiter).writerows(rows)
        return str(path)

    def read(self, *files: str, keep: bool = False, run: str | None = None) -> RatingsReport:
        """The report."""
        url = self.store.url
        return read(RatingsRequest(run=run or self.run, store=url, files=files, keep=keep))


def better(arm: str, number: int) -> int:
    return 4 + number % 2 if arm == "tuned" else 2 + number % 2


def test_known_figures(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    report = sheets.read(sheets.filled(better))
    base, tuned = report.arms["base"], report.arms["tuned"]
    assert (base.mean, tuned.mean) == (2.5, 4.5)
    assert (base.answers, base.ratings, base.counts) == (40, 40, (0, 20, 20, 0, 0))
    assert tuned.ci95 is not None and 4.3 < tuned.ci95[0] < 4.5 < tuned.ci95[1] < 4.7
    (test,) = report.tests.values()
    assert (report.compared, list(report.tests)) == ("tuned", ["base"])
    assert (test.pairs, test.difference) == (40, 2.0)
    assert test.ci95 == pytest.approx((2.0, 2.0))
    assert (test.method, test.outcome) == ("paired permutation", "better")
    (rater,) = report.raters
    assert (rater.rated, rater.unrated, rater.mean) == (80, 0, 3.5)
    assert report.questions == 40
    assert report.agreement.alpha is None
    assert "Have a second one rate the same sheet" in report.agreement.meaning
    assert (report.problems, report.rows, report.notes) == ({}, (), ())
    assert RatingsReport.parse(json.loads(report.model_dump_json()), "x") == report


def test_several_people(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path, raters=3)
    drawn = random.Random(5)

    def strict(arm: str, number: int) -> int:
        return max(1, better(arm, number) - 1)

    def careless(arm: str, number: int) -> int:
        return drawn.randint(1, 5)

    close = [sheets.filled(better, 1), sheets.filled(strict, 2)]
    report = sheets.read(*close)
    assert report.arms["tuned"].mean == 4.0
    assert report.agreement.answers == 80
    assert report.agreement.alpha is not None
    assert 0.5 < report.agreement.alpha < 0.9
    low, high = report.agreement.ci95 or (0, 0)
    assert low < high and low <= report.agreement.alpha <= high
    worse = sheets.read(*close, sheets.filled(careless, 3)).agreement
    assert worse.alpha is not None and worse.alpha < report.agreement.alpha
    assert "people mean different things by the same rating" in worse.meaning


@pytest.mark.parametrize("alone", ["base", "tuned"])
def test_one_who_is_strict_and_rated_one_arm_alone_moves_no_difference(
    tmp_path: Path, alone: str
) -> None:
    sheets = Sheets(tmp_path, raters=2)
    fair = sheets.filled(lambda arm, n: 4, 1)
    strict = sheets.filled(lambda arm, n: 1 if arm == alone else None, 2)
    report = sheets.read(fair, strict)
    assert report.arms[alone].mean == 2.5
    assert (report.tests["base"].pairs, report.tests["base"].difference) == (40, 0.0)
    assert [rater.unrated for rater in report.raters] == [0, 40]


@pytest.mark.parametrize(
    ("delimiter", "encoding"),
    [(";", "cp1252"), (";", "utf-8-sig"), (",", "utf-8"), ("\t", "utf-16")],
    ids=["excel in Europe", "excel, UTF-8", "libreoffice", "excel, Unicode text"],
)
def test_what_programs_save(tmp_path: Path, delimiter: str, encoding: str) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(lambda arm, n: f" {better(arm, n)},0 " if n % 2 else better(arm, n))
    expected = sheets.read(file).arms
    saved = sheets.saved_as_csv(file, "back.csv", delimiter, encoding)
    assert sheets.read(saved).arms == expected


def test_columns_and_rows_that_people_changed(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    book = openpyxl.load_workbook(sheets.filled(better))
    rows = list(book.worksheets[0].iter_rows(values_only=True))[1:]
    path = tmp_path / "changed.xlsx"
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["Rated by Anna"])
    sheet.append([])
    sheet.append(["my notes", "Rating", "what", " ID "])
    for row in sorted(rows, key=lambda row: str(row[0]))[:50]:
        sheet.append(["x", row[-2], "y", f" {row[0]} "])
    book.save(path)
    report = sheets.read(str(path))
    assert (report.raters[0].rated, report.raters[0].unrated) == (50, 30)
    assert report.rows == ()


def test_rows_that_do_not_count_are_named(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(better)
    saved = Path(sheets.saved_as_csv(file, "back.csv", ",", "utf-8"))
    lines = list(csv.reader(saved.open(newline="")))
    said = ["7", "4,5", "good", "\x1b[31m5", "0", "", "2026-05-04"]
    for line, text in zip(lines[1:], said, strict=False):
        line[-2] = text
    lines.append(["zzzzzzzz", "", "", "", "4", ""])
    lines.append(["", "", "", "", "4", ""])
    lines.append(lines[20])
    with saved.open("w", newline="") as opened:
        csv.writer(opened).writerows(lines)
    report = sheets.read(str(saved))
    assert report.problems == {
        "not a number": 3,
        "not from 1 to 5": 2,
        "rated twice in one file": 2,
        "not a whole number": 1,
        "an id of no answer of this run": 1,
        "no id": 1,
    }
    named = [(row.row, row.problem, row.said) for row in report.rows]
    assert named[:5] == [
        (2, "not from 1 to 5", "7"),
        (3, "not a whole number", "4,5"),
        (4, "not a number", "good"),
        (5, "not a number", " [31m5"),
        (6, "not from 1 to 5", "0"),
    ]
    assert [number for number, *_ in named[5:]] == [8, 82, 83, 21, 84]
    assert {row.file for row in report.rows} == {str(saved)}
    assert report.raters[0].rated == 80 - 7 - 1


def test_too_few_ratings_are_said(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    report = sheets.read(sheets.filled(lambda arm, n: better(arm, n) if n < 5 else None))
    assert report.tests["base"].outcome == "too few questions"
    assert report.notes[0].startswith("Only 5 answers of base have a rating; below 30")
    report = sheets.read(sheets.filled(lambda arm, n: 4 if arm == "base" else None))
    assert report.tests == {}
    assert report.arms["tuned"].mean is None
    assert report.notes == (
        "No answer of tuned has a rating.",
        "No question has ratings of both base and tuned by one person, so that the two cannot be "
        "compared.",
    )
    empty = sheets.read(sheets.filled(lambda arm, n: None))
    assert (empty.raters[0].rated, empty.raters[0].unrated) == (0, 80)


def test_two_sheets_of_a_run(tmp_path: Path) -> None:
    """One is a part of the other; who has the small one owes no rating of the rest."""
    sheets = Sheets(tmp_path)
    large = sheets.filled(better)
    small = {"questions": 10, "folder": str(tmp_path / "small")}
    (file,) = write(sheets.request.model_copy(update=small)).files
    (key,) = [
        SheetKey.parse(json.loads(sheets.store.get(info.key)), info.key)
        for info in sheets.store.list("runs/sums-1/evaluate/sheets/keys")
        if sheets.store.get(info.key) != sheets.key_file
    ]
    sheets.key = key
    sheets.files = (file,)
    report = sheets.read(large, sheets.filled(lambda arm, n: 5 if n % 2 else None))
    assert [rater.rated + rater.unrated for rater in report.raters] == [80, 20]
    assert report.questions == 40
    assert sheets.read(file).questions == 10


def test_ratings_that_are_all_the_same(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path, raters=2)
    report = sheets.read(*(sheets.filled(lambda arm, n: 3, number) for number in (1, 2)))
    assert report.agreement.alpha is None
    assert "α is not defined" in report.agreement.meaning
    assert any("have the same ratings" in note for note in report.notes)


def test_files_that_are_refused(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(better)
    copy = tmp_path / "copy.xlsx"
    copy.write_bytes(Path(file).read_bytes())
    with pytest.raises(SpecInvalid, match="given twice; name each person's file once"):
        sheets.read(file, file)
    with pytest.raises(SpecInvalid, match="it is the same as"):
        sheets.read(file, str(copy))
    (tmp_path / "other").mkdir()
    other = Sheets(tmp_path / "other", run="sums-2")
    with pytest.raises(DataInvalid, match="none of its 80 ids is of an answer of run sums-1"):
        sheets.read(other.filled(better))
    with pytest.raises(DataInvalid, match=r"ids\.csv: it has no ids"):
        (tmp_path / "ids.csv").write_text("id,rating\n,4\n")
        sheets.read(str(tmp_path / "ids.csv"))
    with pytest.raises(DataInvalid, match="no column 'rating'"):
        (tmp_path / "rating.csv").write_text("id,mark\na,4\n")
        sheets.read(str(tmp_path / "rating.csv"))
    with pytest.raises(DataInvalid, match=r"'\.ods' is no kind of file that is read"):
        (tmp_path / "a.ods").write_text("x")
        sheets.read(str(tmp_path / "a.ods"))
    with pytest.raises(DataInvalid, match="no such file or directory"):
        sheets.read(str(tmp_path / "none.xlsx"))


def test_a_sheet_of_an_earlier_evaluation(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(better)
    key = "runs/sums-1/evaluate/manifest.json"
    manifest = json.loads(sheets.store.get(key))
    sheets.store.put(key, json.dumps(manifest | {"created": "2026-02-02T00:00:00Z"}).encode())
    with pytest.raises(DataInvalid, match="of an earlier evaluation of run sums-1"):
        sheets.read(file)


def test_a_run_without_sheets(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(better)
    evaluated(tmp_path, "sums-3")
    with pytest.raises(InputMissing, match="`thinktune evaluate sheet sums-3` writes one"):
        sheets.read(file, run="sums-3")
    (info,) = sheets.store.list("runs/sums-1/evaluate/sheets/keys")
    sheets.store.put(info.key, b"{")
    with pytest.raises(InputMissing, match="it is not JSON"):
        sheets.read(file)


def test_a_report_is_kept_beside_the_key(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    file = sheets.filled(better)
    place = "runs/sums-1/evaluate/sheets/ratings.json"
    report = sheets.read(file)
    assert sheets.store.head(place) is None
    assert sheets.read(file, keep=True) == report
    assert RatingsReport.parse(json.loads(sheets.store.get(place)), place) == report
