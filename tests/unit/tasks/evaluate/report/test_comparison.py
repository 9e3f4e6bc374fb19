"""The page that sets runs beside each other: figures, what is not alike, hostile text, ratings."""

import json
import re
from pathlib import Path

import pytest
from test_report import HOSTILE, MARKER, report

from thinktune.schema.comparison import ComparisonRequest
from thinktune.schema.errors import DeviceUnusable, InputMissing
from thinktune.schema.ratings import ArmRatings, RaterAgreement, RatingsReport
from thinktune.schema.report import Report
from thinktune.store import Store, commit, manifest_digest, open_store
from thinktune.tasks.evaluate.report.comparison import Evaluation, page, unlike, write


def evaluation(run: str = "sums-1", prep: str = "a", **given: object) -> Evaluation:
    return Evaluation(report(**given).model_copy(update={"run": run}), prep, None)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_figures_of_each_run() -> None:
    runs = [evaluation(), evaluation("sums-2", questions=12, marker=None)]
    html = page(runs)
    text = text_of(html)
    assert "2 evaluations beside each other" in text
    assert f"“{MARKER}” present sums-1 100.0% against 0.0% better +100.0 pp" in text
    assert "sums-2 not measured" in text
    assert "Accuracy sums-1 50.0% against 100.0% worse" in text
    assert "Questions 40 12" in text
    assert html.count("<svg") == 3
    assert "not alike" in text


def test_a_metric_alone() -> None:
    text = text_of(page([evaluation()], ["accuracy"]))
    assert "Accuracy sums-1 50.0% against 100.0% worse" in text
    assert "present sums-1" not in text
    assert "not alike" not in text


def test_what_is_not_alike() -> None:
    assert unlike([evaluation(), evaluation("sums-2")]) == []
    found = unlike([evaluation(), evaluation("sums-2", "b", questions=12, temperature=0.0)])
    assert found == [
        "numbers of questions: 40, 12",
        "temperatures: 0.6, 0.0",
        "data: the runs prepared it apart, so that the questions need not be the same",
    ]


def test_one_scale_for_all_runs_of_a_metric() -> None:
    html = page([evaluation(), evaluation("sums-2", questions=12)], ["accuracy"])
    points = {float(x) for x in re.findall(r'<circle cx="([^"]+)"', html)}
    assert len(points) == 1  # both are half a share below their base
    assert -100 < points.pop() < -50


def test_the_page_stands_alone_and_hostile_text_stays_text() -> None:
    made = evaluation().report
    labels = {name: result.model_copy(update={"label": HOSTILE}) for name, result in
              made.metrics.items()}  # fmt: skip
    hostile = made.model_copy(
        update={"model": HOSTILE, "headline": HOSTILE, "metrics": labels, "marker": HOSTILE}
    )
    html = page([Evaluation(hostile, HOSTILE, None), evaluation()])
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert re.findall(r"(?:src|href)=|url\(|@import", html) == []
    assert "default-src 'none'" in html


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(f"file://{tmp_path}/store")
    for run in ("one", "two"):
        kept(opened, tmp_path, run, evaluation(run).report.model_dump(mode="json"))
    return opened


def kept(store: Store, folder: Path, run: str, plain: object) -> str:
    """Commits an evaluation; the digest of its manifest."""
    output = folder / run
    output.mkdir()
    (output / "report.json").write_text(json.dumps(plain))
    manifest = commit(
        store, f"runs/{run}/evaluate", output, kind="evaluate", run=run, attempt="a",
        inputs={"prep": "0" * 64}, task_sha256=None, created="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return manifest_digest(manifest)


def asked(store: Store, out: Path, *runs: str) -> str:
    request = ComparisonRequest(store=store.url, runs=runs, metrics=(), out=str(out))
    return Path(write(request)).read_text()


def rated(run: str, evaluation: str, made: Report) -> RatingsReport:
    test = made.metrics["accuracy"].test
    assert test is not None
    arms = {
        arm: ArmRatings(answers=3, ratings=3, mean=mean, ci95=None, counts=(0, 0, 1, 1, 1))
        for arm, mean in (("base", 2.75), ("tuned", 4.25))
    }
    agreed = RaterAgreement(alpha=None, ci95=None, answers=0, meaning="None.")
    return RatingsReport(
        run=run, evaluation=evaluation, questions=3, raters=(), arms=arms, compared="tuned",
        tests={"base": test}, agreement=agreed, problems={}, rows=(), notes=(), rule="None.",
    )  # fmt: skip


def test_runs_of_a_store(store: Store, tmp_path: Path) -> None:
    html = asked(store, tmp_path / "page.html", "one", "two")
    assert "one 50.0% against 100.0%" in text_of(html)
    with pytest.raises(InputMissing, match="stage evaluate of run three has committed nothing"):
        asked(store, tmp_path / "page.html", "one", "three")
    with pytest.raises(DeviceUnusable, match="name another file with --html"):
        asked(store, tmp_path / "none/page.html", "one")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"format": 2}, "its format is 2, this thinktune reads 3"),
        ({}, "its format is None"),
        ([], "its format is None"),
        ({"format": 3}, "is missing"),
    ],
)
def test_reports_of_another_version(
    store: Store, tmp_path: Path, plain: object, message: str
) -> None:
    kept(store, tmp_path, "old", plain)
    with pytest.raises(InputMissing, match=message):
        asked(store, tmp_path / "page.html", "one", "old")


def test_ratings_that_were_kept(store: Store, tmp_path: Path) -> None:
    made = evaluation("rated").report
    digest = kept(store, tmp_path, "rated", made.model_dump(mode="json"))
    key = "runs/rated/evaluate/sheets/ratings.json"
    store.put(key, rated("rated", digest, made).model_dump_json().encode())
    text = text_of(asked(store, tmp_path / "page.html", "one", "rated"))
    assert "Rating by people, from 1 to 5 one not measured rated 4.25 against 2.75" in text
    store.put(key, rated("rated", "0" * 64, made).model_dump_json().encode())
    assert "Rating by people" not in asked(store, tmp_path / "page.html", "rated")
    store.put(key, b"{")
    with pytest.raises(InputMissing, match="it cannot be read"):
        asked(store, tmp_path / "page.html", "rated")
