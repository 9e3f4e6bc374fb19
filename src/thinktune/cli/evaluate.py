"""`thinktune evaluate` and `thinktune compare`: judging answers, and runs beside each other.

What people say of a run's answers is in `cli.people`.
"""

import json
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.data_output import clean
from thinktune.cli.evaluate_checkpoints import checkpoints
from thinktune.cli.lm_eval import lm_eval
from thinktune.cli.options import output_option, store_option, store_url
from thinktune.cli.people import agreement, sheet
from thinktune.cli.reference import compare_with, reference_option
from thinktune.launch.local import COMPARISON, MATHEMATICS, ask_module
from thinktune.schema.comparison import ComparisonRequest
from thinktune.schema.errors import InputMissing, SpecInvalid, near_misses
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import MetricValue
from thinktune.schema.report import Verifier
from thinktune.schema.score import ScoreReport, ScoreRequest
from thinktune.store import Store, open_store, read_manifest

SHOWN_ROWS = 8
VERIFIERS = [name for name in get_args(Verifier) if name != "none"]


@click.group()
def evaluate() -> None:
    """Judge answers of any origin, with people or without, and look closer at a run's own."""


evaluate.add_command(checkpoints)


@evaluate.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--verifier", type=click.Choice(VERIFIERS),
    help="How an answer is compared.  [default: chosen by the references]",
)  # fmt: skip
@click.option(
    "--marker", metavar="TEXT",
    help="What the line of the final answer starts with.  [default: none, all is read]",
)  # fmt: skip
@click.option("--answer", metavar="COLUMN", default="answer", show_default=True,
    help="Column of the answers.")  # fmt: skip
@click.option("--reference", metavar="COLUMN", default="reference", show_default=True,
    help="Column of the references.")  # fmt: skip
@output_option
def score(
    file: str,
    verifier: Verifier | None,
    marker: str | None,
    answer: str,
    reference: str,
    output: str,
) -> int:
    """Judge the answers in FILE as an evaluation would, without a model.

    FILE is .jsonl or .csv, a row for each answer. Reasoning in think tags is left out. Rows without
    an answer or a reference that can be checked are counted apart.

    \b
    Examples:
      thinktune evaluate score answers.jsonl --verifier math
      thinktune evaluate score answers.csv --marker "Final Answer:" --output json
    """
    request = ScoreRequest(
        file=file, verifier=verifier, marker=marker, answer=answer, reference=reference
    )
    answered = ask_module("thinktune.tasks.evaluate.score", request, MATHEMATICS)
    if output == "json":
        click.echo(answered.rstrip())
    else:
        _show_score(ScoreReport.model_validate_json(answered))
    return int(ExitCode.DONE)


evaluate.add_command(lm_eval)


def _show_score(report: ScoreReport) -> None:
    if report.accuracy is None or report.ci95 is None:
        click.echo(f"none of {report.rows} rows has a verdict")
    else:
        low, high = (f"{100 * end:.1f}%" for end in report.ci95)
        click.echo(
            f"{report.correct} of {report.scored} right: {100 * report.accuracy:.1f}%"
            f" (95%: {low} to {high})"
        )
    click.echo(f"verifier {report.verifier}: {report.rule}")
    for problem, count in report.problems.items():
        click.echo(f"  {count:>6}  {problem}")
    wrong = [row for row in report.verdicts if row.correct is False][:SHOWN_ROWS]
    if wrong:
        click.echo("wrong, the first of them:")
    for row in wrong:
        said = "nothing to compare" if row.extracted is None else clean(row.extracted)[:80]
        click.echo(f"  {clean(row.id)}: {said}")


evaluate.add_command(sheet)
evaluate.add_command(agreement)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True,
    help="Metric to compare. Can be repeated.  [default: all that some run has]",
)  # fmt: skip
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Also write the comparison as a page, in one file.",
)  # fmt: skip
@reference_option
@store_option
@output_option
def compare(
    runs: tuple[str, ...],
    metrics: tuple[str, ...],
    page: Path | None,
    reference: str | None,
    store: str | None,
    output: str,
) -> int:
    """Compare the evaluations of several runs.

    Shows the tuned model's figures of each run, the base model's in parentheses, and whether the
    run was promoted. The runs' own reports say what is more than chance.

    \b
    Examples:
      thinktune compare demo-05e818b6 demo-7f20cc11
      thinktune compare RUN RUN --metric accuracy --output json
      thinktune compare RUN RUN RUN --html comparison.html
      thinktune compare RUN --reference final-answer
    """
    opened = open_store(store_url(store))
    if reference is not None and (metrics or page is not None):
        fault = "--reference goes with neither --metric nor --html"
        raise SpecInvalid("thinktune compare", fault, "leave one of them out")
    if reference is not None:
        return compare_with(reference, runs, opened, output)
    found = {run: _figures(opened, run) for run in runs}
    known = _metric_names(found)
    for name in metrics:
        if name not in known:
            fault = f"no run has a metric '{name}'"
            raise SpecInvalid("--metric", fault, near_misses(name, known))
    if page is not None:
        request = ComparisonRequest(
            store=store_url(store), runs=runs, metrics=metrics, out=str(page)
        )
        written = ask_module("thinktune.tasks.evaluate.report.comparison", request, COMPARISON)
        click.echo(written.rstrip(), err=True)
    names = list(metrics) or known
    if output == "json":
        click.echo(json.dumps({run: _chosen(found[run], metrics) for run in runs}, indent=1))
        return int(ExitCode.DONE)
    _show_runs(found, runs, names)
    return int(ExitCode.DONE)


def _show_runs(
    found: dict[str, dict[str, MetricValue]], runs: tuple[str, ...], names: list[str]
) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for run in runs:
        table.add_column(run, justify="right")
    for name in names:
        table.add_row(name, *(_cell(found[run], name) for run in runs))
    table.add_row("questions", *(str(found[run].get("questions", "–")) for run in runs))
    table.add_row("promoted", *(_promoted(found[run]) for run in runs))
    Console(highlight=False).print(table)


def _figures(store: Store, run: str) -> dict[str, MetricValue]:
    prefix = stage_prefix(run, "evaluate")
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"run {run} has no evaluation"
        raise InputMissing(store.location(prefix), fault, "evaluate it first, or name another run")
    return manifest.metrics


def _chosen(figures: dict[str, MetricValue], metrics: tuple[str, ...]) -> dict[str, MetricValue]:
    """The figures of some metrics; all of them where none is named."""
    # `tuned_medqa_accuracy` is no accuracy of the held-out questions.
    longer = [name for name in _metric_names({"": figures}) if name not in metrics]
    return {
        key: value
        for key, value in figures.items()
        if not metrics
        or any(key == f"{name}_p" for name in metrics)
        or (
            any(key.endswith(f"_{name}") for name in metrics)
            and not any(key.endswith(f"_{other}") for other in longer)
        )
    }


def _metric_names(found: dict[str, dict[str, MetricValue]]) -> list[str]:
    names = [key.removeprefix("tuned_") for figures in found.values() for key in figures
             if key.startswith("tuned_")]  # fmt: skip
    return list(dict.fromkeys(names))


def _cell(figures: dict[str, MetricValue], name: str) -> str:
    tuned, base = figures.get(f"tuned_{name}"), figures.get(f"base_{name}")
    return f"{_number(tuned)} ({_number(base)})"


def _number(value: MetricValue) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _promoted(figures: dict[str, MetricValue]) -> str:
    promoted = figures.get("promoted")
    if promoted is None:
        return "–"
    return "yes" if promoted else "no"
