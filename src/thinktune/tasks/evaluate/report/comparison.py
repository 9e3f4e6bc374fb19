"""One page that sets the evaluations of several runs beside each other: `python -m
thinktune.tasks.evaluate.report.comparison`.

Called by `thinktune compare --html`. Reads a ComparisonRequest from stdin and prints the path of
the page. The figures are those of the runs' own reports.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from thinktune.schema.comparison import ComparisonRequest
from thinktune.schema.errors import DeviceUnusable, InputMissing, SpecInvalid
from thinktune.schema.keys import ratings_key, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.ratings import RatingsReport
from thinktune.schema.report import BASE, REPORT_FORMAT, TUNED, MetricResult, PairedTest, Report
from thinktune.store import ObjectMissing, Store, fetch, manifest_digest, open_store
from thinktune.tasks.evaluate.report.template import environment
from thinktune.tasks.evaluate.report.wording import figure
from thinktune.tasks.runtime.answering import answer
from thinktune.tasks.runtime.inputs import stage_manifest

REPORT = "report.json"
RATING_LABEL = "Rating by people, from 1 to 5"


@dataclass(frozen=True)
class Evaluation:
    """One run."""

    report: Report
    prep: str | None
    """Digest of the manifest of the data that it was asked about."""
    ratings: RatingsReport | None
    """What people said of its answers, where that was kept."""


@dataclass(frozen=True)
class Cell:
    """What one run has to say of one metric."""

    tuned: str
    base: str
    test: PairedTest | None
    """The tuned model's against the base model."""


@dataclass(frozen=True)
class Row:
    """One metric of all runs."""

    label: str
    unit: str
    cells: tuple[Cell | None, ...]
    """Of each run; None where it has no such figure."""

    @property
    def reach(self) -> float:
        """The largest number of the tests' intervals: all are drawn to one scale."""
        tests = [cell.test for cell in self.cells if cell is not None and cell.test is not None]
        ends = [abs(end) for test in tests for end in (*test.ci95, test.difference)]
        return max(ends, default=0.0) or 1e-9

    @property
    def tested(self) -> bool:
        """Whether a run has a test of it."""
        return any(cell is not None and cell.test is not None for cell in self.cells)


def main() -> NoReturn:
    """Answers one request."""
    answer(lambda said: write(ComparisonRequest.model_validate_json(said)))


def write(request: ComparisonRequest) -> str:
    """Writes the page and gives its path. Raises InputMissing for a run without a report of this
    version, DeviceUnusable where the page cannot be written."""
    store = open_store(request.store)
    found = {run: _evaluation(store, run) for run in request.runs}
    path = Path(request.out)
    try:
        path.write_text(page(list(found.values()), request.metrics), encoding="utf-8")
    except OSError as error:
        fault = (error.strerror or str(error)).lower()
        raise DeviceUnusable(str(path), fault, "name another file with --html") from None
    return str(path)


def page(runs: Sequence[Evaluation], metrics: Sequence[str] = ()) -> str:
    """The page's HTML: one file that needs no network and no script, in light and dark."""
    rows = _rows(runs, metrics)
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            reports=[each.report for each in runs],
            rows=rows,
            tested=[row for row in rows if row.tested],
            unlike=unlike(runs),
        )
    )


def unlike(runs: Sequence[Evaluation]) -> list[str]:
    """In what the evaluations differ, so that their figures may differ for that reason too."""
    facts: dict[str, Callable[[Evaluation], object]] = {
        "base models": lambda each: each.report.model,
        "numbers of questions": lambda each: f"{each.report.questions:,}",
        "answers to each question": lambda each: each.report.samples_per_question,
        "precisions of the tuned model": lambda each: each.report.arms[TUNED].precision,
        "engines": lambda each: each.report.arms[TUNED].engine,
        "temperatures": lambda each: each.report.sampling.temperature,
        "limits of tokens": lambda each: f"{each.report.sampling.max_new_tokens:,}",
        "verifiers": lambda each: each.report.verifier.used,
        "final-answer lines": lambda each: (
            f"“{each.report.marker}”" if each.report.marker else "none"
        ),
    }
    found = []
    for name, fact in facts.items():
        values = dict.fromkeys(str(fact(each)) for each in runs)
        if len(values) > 1:
            found.append(f"{name}: {', '.join(values)}")
    if len({each.prep for each in runs}) > 1:
        found.append("data: the runs prepared it apart, so that the questions need not be the same")
    return found


def _evaluation(store: Store, run: str) -> Evaluation:
    manifest = stage_manifest(store, run, "evaluate")
    return Evaluation(
        _report(store, run, manifest), manifest.inputs.get("prep"), _ratings(store, run, manifest)
    )


def _report(store: Store, run: str, manifest: Manifest) -> Report:
    prefix = stage_prefix(run, "evaluate")
    with tempfile.TemporaryDirectory(prefix="thinktune-compare-") as folder:
        path = fetch(store, prefix, manifest, Path(folder), names=[REPORT]) / REPORT
        plain = json.loads(path.read_text(encoding="utf-8"))
    place = f"{store.location(prefix)}: {REPORT}"
    version = plain.get("format") if isinstance(plain, dict) else None
    remedy = "compare without --html, or evaluate the run again"
    if version != REPORT_FORMAT:
        fault = f"its format is {version!r}, this thinktune reads {REPORT_FORMAT}"
        raise InputMissing(place, fault, remedy)
    try:
        return Report.parse(plain, place)
    except SpecInvalid as error:
        raise InputMissing(place, error.fault, remedy) from None


def _ratings(store: Store, run: str, manifest: Manifest) -> RatingsReport | None:
    """None also where they are of an earlier evaluation of the run."""
    key = ratings_key(run)
    try:
        found = RatingsReport.parse(json.loads(store.get(key)), store.location(key))
    except ObjectMissing:
        return None
    except (SpecInvalid, ValueError) as error:
        remedy = "delete it, or make it again: thinktune evaluate sheet --read … --keep"
        raise InputMissing(store.location(key), f"it cannot be read ({error})", remedy) from None
    return found if found.evaluation == manifest_digest(manifest) else None


def _rows(runs: Sequence[Evaluation], metrics: Sequence[str]) -> list[Row]:
    names = dict.fromkeys(name for each in runs for name in each.report.metrics)
    rows = [_row(runs, name) for name in names if not metrics or name in metrics]
    ratings = [each.ratings for each in runs]
    if any(ratings) and not metrics:
        rows.insert(0, Row(RATING_LABEL, "rating", tuple(map(_rated, ratings))))
    return [row for row in rows if any(row.cells)]


def _row(runs: Sequence[Evaluation], name: str) -> Row:
    results = [each.report.metrics.get(name) for each in runs]
    first = next(result for result in results if result is not None)
    return Row(first.label, first.unit, tuple(map(_measured, results)))


def _measured(result: MetricResult | None) -> Cell | None:
    if result is None or result.why_none is not None:
        return None
    tuned, base = (figure(result.values.get(arm), result.unit) for arm in (TUNED, BASE))
    return Cell(tuned, base, result.test)


def _rated(ratings: RatingsReport | None) -> Cell | None:
    if ratings is None or TUNED not in ratings.arms:
        return None
    means = [ratings.arms[arm].mean if arm in ratings.arms else None for arm in (TUNED, BASE)]
    tuned, base = ("–" if mean is None else f"{mean:.2f}" for mean in means)
    return Cell(tuned, base, ratings.tests.get(BASE))


if __name__ == "__main__":
    main()
