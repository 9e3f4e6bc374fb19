"""Sheets for raters: what stands in them, what does not tell the arm, where the key is."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import openpyxl
import pytest
from evaluated_run import evaluated, usual

from thinktune.schema.errors import DeviceUnusable, InputMissing, SpecInvalid
from thinktune.schema.ratings import RatingSheetFacts, RatingSheetRequest, SheetKey
from thinktune.store import Store
from thinktune.tasks.evaluate.people.sheet import write
from thinktune.text.spreadsheet import CELL_CHARACTERS, cell_length

Rows = list[dict[str, str]]


def written(store: Store, folder: Path, **given: object) -> RatingSheetFacts:
    asked: dict[str, object] = {"run": "sums-1", "store": store.url, "folder": str(folder)}
    asked |= {"kind": "xlsx", "questions": 40, "raters": 1, "arms": (), "seed": 0}
    asked |= {"reasoning": False, **given}
    return write(RatingSheetRequest.model_validate(asked))


def rows_of(file: str) -> Rows:
    if file.endswith(".csv"):
        with Path(file).open(encoding="utf-8-sig", newline="") as opened:
            return list(csv.DictReader(opened))
    header, *rows = openpyxl.load_workbook(file).worksheets[0].iter_rows(values_only=True)
    return [dict(zip(map(str, header), (str(v or "") for v in row), strict=True)) for row in rows]


def key_of(store: Store) -> SheetKey:
    (info,) = store.list("runs/sums-1/evaluate/sheets/keys")
    return SheetKey.parse(json.loads(store.get(info.key)), info.key)


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_a_row_holds_a_question_a_reference_and_an_answer(tmp_path: Path, kind: str) -> None:
    store = evaluated(tmp_path)
    facts = written(store, tmp_path / "out", kind=kind, questions=10)
    assert facts.files == (str(tmp_path / f"out/sums-1-1.{kind}"),)
    assert (facts.rows, facts.questions, facts.arms, facts.cut) == (20, 10, ("base", "tuned"), 0)
    rows, key = rows_of(facts.files[0]), key_of(store)
    assert list(rows[0]) == ["id", "question", "reference", "answer", "rating", "comment"]
    assert {row["id"] for row in rows} == set(key.rows)
    for row in rows:
        about = key.rows[row["id"]]
        number = about.question.removeprefix("q")
        said = usual(about.arm, int(number)).partition("</think>\n")[2]
        assert (row["question"], row["reference"]) == (f"What is {number}?", number)
        assert (row["answer"], row["rating"], row["comment"]) == (said, "", "")
    arms_of: dict[str, list[str]] = {}
    for about in key.rows.values():
        arms_of.setdefault(about.question, []).append(about.arm)
    assert len(arms_of) == 10
    assert all(sorted(arms) == ["base", "tuned"] for arms in arms_of.values())


def test_nothing_in_a_sheet_tells_the_arm(tmp_path: Path) -> None:
    """The arms say the same, so that rows of the two could differ only where a sheet gives away
    more than it should."""
    store = evaluated(tmp_path, say=lambda arm, number: f"<think>so</think>{number % 3}")
    (file,) = written(store, tmp_path / "out", raters=1, questions=40).files
    rows, key = rows_of(file), key_of(store)
    arms = [key.rows[row["id"]].arm for row in rows]
    changes = sum(a != b for a, b in pairwise(arms))
    assert 20 < changes < 60  # of 79; neither in blocks nor in turns
    first = {}
    for row, arm in zip(rows, arms, strict=True):
        first.setdefault(row["question"], arm)
    assert 6 < list(first.values()).count("base") < 34
    for name in ("base", "tuned"):
        assert name.encode() not in Path(file).read_bytes()
        assert all(name not in cell for row in rows for cell in row.values())
    assert all(len(row["id"]) == 8 and row["id"].isalpha() for row in rows)


def test_ids_are_drawn_anew(tmp_path: Path) -> None:
    """Who knows the program, the run and the seed must not be able to compute the arms."""
    ids = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        store = evaluated(tmp_path / name)
        written(store, tmp_path / name / "out")
        ids.append(set(key_of(store).rows))
    assert not ids[0] & ids[1]


def test_each_rater_has_the_same_rows_in_another_order(tmp_path: Path) -> None:
    facts = written(evaluated(tmp_path), tmp_path / "out", raters=3, questions=12)
    sheets = [rows_of(file) for file in facts.files]
    orders = [[row["id"] for row in rows] for rows in sheets]
    assert len({tuple(order) for order in orders}) == 3
    assert len({frozenset(map(str, rows)) for rows in map(sorted_rows, sheets)}) == 1


def sorted_rows(rows: Rows) -> list[tuple[str, ...]]:
    return sorted(tuple(row.values()) for row in rows)


def test_the_same_call_writes_the_same_sheet_again_and_another_seed_another(
    tmp_path: Path,
) -> None:
    store = evaluated(tmp_path)
    first, again, other = (
        written(store, tmp_path / name, questions=10, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert (first.written_before, again.written_before, other.written_before) == (
        False, True, False,
    )  # fmt: skip
    assert rows_of(first.files[0]) == rows_of(again.files[0])
    questions = [{row["question"] for row in rows_of(each.files[0])} for each in (first, other)]
    assert questions[0] != questions[1]
    assert first.key == again.key != other.key


def test_a_sheet_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    store = evaluated(tmp_path)
    (file,) = written(store, tmp_path / "out").files
    before = Path(file).read_bytes()
    with pytest.raises(SpecInvalid, match="may have ratings in it; name another folder with --out"):
        written(store, tmp_path / "out", raters=2)
    assert Path(file).read_bytes() == before
    assert not Path(file.replace("-1.xlsx", "-2.xlsx")).exists()


def test_the_reasoning_beside_the_answer(tmp_path: Path) -> None:
    texts = ("<think>never ends", "<think> so\n=1+1 </think>\n=1")
    store = evaluated(tmp_path, say=lambda arm, number: texts[arm == "tuned"])
    (file,) = written(store, tmp_path / "out", reasoning=True, questions=1).files
    found = {(row["reasoning"], row["answer"]) for row in rows_of(file)}
    assert found == {("never ends", "(no answer)"), ("so\n=1+1", "=1")}
    assert {c.data_type for c in openpyxl.load_workbook(file).worksheets[0]["E"]} == {"s"}


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_no_answer_becomes_a_formula(tmp_path: Path, kind: str) -> None:
    said = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "so;=1+1", "a\n=1", "\x00\x1b[31m\ud800"]
    store = evaluated(tmp_path, say=lambda arm, number: said[number % len(said)])
    (file,) = written(store, tmp_path / "out", kind=kind).files
    if kind == "xlsx":
        sheet = openpyxl.load_workbook(file).worksheets[0]
        assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}
        assert {cell.value for row in sheet.iter_rows(min_col=5) for cell in row[:2]} == {
            "rating", "comment", None,
        }  # fmt: skip
        return
    for delimiter in ",;":
        with Path(file).open(encoding="utf-8-sig", newline="") as opened:
            cells = [cell for row in csv.reader(opened, delimiter=delimiter) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]


def test_other_arms(tmp_path: Path) -> None:
    store = evaluated(tmp_path, arms=("base", "asked", "tuned"))
    assert written(store, tmp_path / "a").arms == ("base", "tuned")
    assert written(store, tmp_path / "b", arms=("tuned", "asked")).arms == ("asked", "tuned")
    with pytest.raises(SpecInvalid, match="no answers of an arm 'taned'; did you mean 'tuned'"):
        written(store, tmp_path / "c", arms=("taned",))


def test_the_first_of_several_answers(tmp_path: Path) -> None:
    store = evaluated(tmp_path, samples=3)
    assert written(store, tmp_path / "out").rows == 80
    assert {about.sample for about in key_of(store).rows.values()} == {0}


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    store = evaluated(tmp_path, say=lambda arm, number: arm[0] * 50_000 if number < 2 else "x")
    facts = written(store, tmp_path / "out")
    assert facts.cut == 4
    longest = max(rows_of(facts.files[0]), key=lambda row: len(row["answer"]))["answer"]
    assert "characters are left out here" in longest
    assert cell_length(longest) <= CELL_CHARACTERS


def test_runs_that_cannot_be_rated(tmp_path: Path) -> None:
    store = evaluated(tmp_path)
    with pytest.raises(InputMissing, match="stage evaluate of run other has committed nothing"):
        written(store, tmp_path / "out", run="other")
    store.delete_prefix("runs/sums-1/prep")
    with pytest.raises(InputMissing, match="stage prep of run sums-1 has committed nothing"):
        written(store, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceUnusable, match="name another folder with --out"):
        written(evaluated(tmp_path, "sums-2"), tmp_path / "file/out", run="sums-2")


def test_questions_of_another_prep(tmp_path: Path) -> None:
    store = evaluated(tmp_path)
    key = "runs/sums-1/prep/manifest.json"
    manifest = json.loads(store.get(key))
    store.put(key, json.dumps(manifest | {"created": "2026-02-02T00:00:00Z"}).encode())
    with pytest.raises(InputMissing, match="not the artifact whose questions were asked"):
        written(store, tmp_path / "out")
