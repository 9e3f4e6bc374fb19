"""A judge beside people: known κ, ids of both kinds, what does not count, what is refused."""

import json
from pathlib import Path

import openpyxl
import pytest
from evaluated_run import evaluated

from thinktune.schema.errors import DataInvalid, InputMissing
from thinktune.schema.ratings import (
    AgreementReport,
    AgreementRequest,
    RatingSheetRequest,
    SheetKey,
)
from thinktune.store import Store
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.judge import ORDERS
from thinktune.tasks.evaluate.people.agreement import compare
from thinktune.tasks.evaluate.people.sheet import write

Replies = dict[str, dict[str, str | None]]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 250)


def key(arm: str, number: int) -> str:
    return f"{arm}-000/q{number}"


def judged(said: dict[str, str | None]) -> Replies:
    """Both orders say the same of each answer."""
    return {sample: dict.fromkeys(ORDERS, word) for sample, word in said.items()}


def labels(folder: Path, rows: list[dict[str, object]], name: str = "labels.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def compared(store: Store, *files: str) -> AgreementReport:
    report = compare(AgreementRequest(run="sums-1", store=store.url, files=files))
    assert AgreementReport.parse(json.loads(report.model_dump_json()), "x") == report
    return report


def test_a_published_table(tmp_path: Path) -> None:
    """Two readers of 50 proposals, 20 and 15 of them agreed on: κ is 0.4."""
    cells = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    arms = ("base", "tuned")
    words = {key(arms[n % 2], n // 2): cell for n, cell in enumerate(cells)}
    said = {sample: "CORRECT" if judge else "INCORRECT" for sample, (_, judge) in words.items()}
    store = evaluated(tmp_path, replies=judged(said))
    rows: list[dict[str, object]] = [
        {"id": sample, "correct": human} for sample, (human, _) in words.items()
    ]
    report = compared(store, labels(tmp_path, rows))
    found = report.correct
    assert found is not None and found.kappa is not None and found.ci95 is not None
    assert (found.pairs, found.questions, found.agreement) == (50, 25, 0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.ci95[0] < 0.25 < 0.4 < 0.55 < found.ci95[1]
    assert found.labels == ("incorrect", "correct")
    assert found.table == ((15, 10), (5, 20))  # rows are people's
    assert set(found.by_arm) == {"base", "tuned"}
    assert (report.rating, report.notes, report.problems) == (None, (), {})


def test_ratings_are_weighted_by_how_far_they_are_apart(tmp_path: Path) -> None:
    replies = {key("base", n): {"rating": str(1 + n % 5)} for n in range(40)}
    store = evaluated(tmp_path, replies=replies)

    def kappa_of(shift: int) -> float:
        rows: list[dict[str, object]] = [
            {"id": key("base", n), "rating": 1 + (n + shift * (n % 2)) % 5} for n in range(40)
        ]
        found = compared(store, labels(tmp_path, rows)).rating
        assert found is not None and found.kappa is not None
        assert found.weights == "quadratic"
        return found.kappa

    assert kappa_of(0) == 1.0
    assert 0 < kappa_of(2) < kappa_of(1) < 1


def sheet_of(store: Store, folder: Path) -> tuple[str, SheetKey]:
    request = RatingSheetRequest(
        run="sums-1", store=store.url, folder=str(folder / "out"), kind="xlsx", questions=40,
        raters=1, arms=(), seed=0, reasoning=False,
    )  # fmt: skip
    (file,) = write(request).files
    (info,) = store.list("runs/sums-1/evaluate/sheets/keys")
    return file, SheetKey.parse(json.loads(store.get(info.key)), info.key)


def test_a_filled_sheet_is_a_file_of_labels(tmp_path: Path) -> None:
    replies = {
        key(arm, n): {"rating": str(1 + n % 5)} for arm in ("base", "tuned") for n in range(40)
    }
    store = evaluated(tmp_path, replies=replies)
    file, sheet_key = sheet_of(store, tmp_path)
    book = openpyxl.load_workbook(file)
    for id_, *_, rating, _ in book.worksheets[0].iter_rows(min_row=2):
        rating.value = 1 + int(sheet_key.rows[id_.value].question.removeprefix("q")) % 5
    book.save(file)
    report = compared(store, file)
    assert report.rating is not None
    assert (report.rating.pairs, report.rating.kappa) == (80, 1.0)
    assert report.labels == {file: 80}


def test_several_people_count_each(tmp_path: Path) -> None:
    store = evaluated(tmp_path, replies=judged({key("base", n): "CORRECT" for n in range(30)}))
    files = [
        labels(tmp_path, [{"id": key("base", n), "correct": word} for n in range(30)], name)
        for name, word in (("a.jsonl", "yes"), ("b.jsonl", "no"))
    ]
    found = compared(store, *files).correct
    assert found is not None
    assert (found.pairs, found.questions, found.agreement) == (60, 30, 0.5)


def test_what_does_not_count(tmp_path: Path) -> None:
    said: dict[str, str | None] = {key("base", n): "CORRECT" for n in range(6)}
    replies = judged(said | {key("base", 6): "hm", key("base", 7): None})
    replies[key("base", 8)] = {ORDERS[0]: "CORRECT", ORDERS[1]: "INCORRECT"}
    store = evaluated(tmp_path, replies=replies)
    rows: list[dict[str, object]] = [{"id": key("base", n), "correct": "Yes"} for n in range(10)]
    rows += [
        {"id": key("base", 0), "correct": "no"},
        {"id": "q3", "correct": "no"},
        {"id": key("base", 20), "correct": "perhaps"},
        {"id": key("base", 21), "correct": None},
        {"correct": True},
    ]
    report = compared(store, labels(tmp_path, rows))
    found = report.correct
    assert found is not None
    assert (found.pairs, found.no_verdict) == (5, 4)
    assert report.problems == {
        "rated twice in one file": 2,
        "an id of no answer of this run": 1,
        "neither yes nor no": 1,
        "no id": 1,
    }
    assert [(row.row, row.said) for row in report.rows] == [
        (1, "Yes"), (11, "no"), (12, "no"), (13, "perhaps"), (15, "true"),
    ]  # fmt: skip
    assert found.kappa is None
    assert report.notes[0].startswith("Only 5 answers were judged by both")
    assert "κ is not defined" in report.notes[1]


def test_csv_with_yes_and_no(tmp_path: Path) -> None:
    store = evaluated(tmp_path, replies=judged({key("base", n): "CORRECT" for n in range(4)}))
    path = tmp_path / "labels.csv"
    path.write_text("id;CORRECT;who\nbase-000/q0;ja;x\nbase-000/q1;0;x\nbase-000/q2;richtig;x\n")
    report = compared(store, str(path))
    assert report.correct is not None
    assert (report.correct.pairs, report.correct.agreement) == (2, 0.5)
    assert report.rows[0].said == "richtig"


def test_what_is_refused(tmp_path: Path) -> None:
    store = evaluated(tmp_path, replies=judged({key("base", 0): "CORRECT"}))
    said: list[dict[str, object]] = [{"id": key("base", 0), "rating": 4}]
    with pytest.raises(DataInvalid, match="the judge of run sums-1 says 'correct', and here stand"):
        compared(store, labels(tmp_path, said))
    with pytest.raises(DataInvalid, match="none of its 1 ids is of an answer of run sums-1"):
        compared(store, labels(tmp_path, [{"id": "x", "correct": "yes"}]))
    with pytest.raises(DataInvalid, match="no column 'correct' or 'rating'"):
        compared(store, labels(tmp_path, [{"id": key("base", 0), "right": "yes"}]))
    (tmp_path / "bad.jsonl").write_text("\n[1]\n")
    with pytest.raises(DataInvalid, match=r"bad\.jsonl:2: it is no JSON object"):
        compared(store, str(tmp_path / "bad.jsonl"))
    (tmp_path / "bad.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataInvalid, match="it is not UTF-8"):
        compared(store, str(tmp_path / "bad.jsonl"))
    (tmp_path / "plain").mkdir()
    plain = evaluated(tmp_path / "plain")
    with pytest.raises(InputMissing, match=r"no language model judged the answers; set evaluate\."):
        compared(plain, labels(tmp_path, said))
