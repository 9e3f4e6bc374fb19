"""`thinktune evaluate checkpoints`: how accuracy and format change over a training."""

import json

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.options import (
    output_option,
    read,
    run_argument,
    set_option,
    store_option,
    store_url,
)
from thinktune.launch.local import ANSWERING, ask_module
from thinktune.launch.runs import adapter_of, make_run
from thinktune.schema.checkpoint_scores import CheckpointsReport, CheckpointsRequest, Figure
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import task_key
from thinktune.schema.stages import EvaluateTask
from thinktune.store import ObjectMissing, Store, open_store

MODULE = "thinktune.tasks.evaluate.checkpoints"
SHOWN = {"accuracy": "ACCURACY", "format_rate": "FORMAT", "thinking_truncated": "CUT OFF"}
"""Metrics in the table; the JSON has all of them."""


@click.command()
@run_argument
@click.option(
    "--step", "steps", type=click.IntRange(min=1), multiple=True, metavar="N",
    help="Step of a checkpoint. Can be repeated.  [default: all that are kept]",
)  # fmt: skip
@click.option(
    "--questions", type=click.IntRange(min=1), metavar="N",
    help="Number of held-out questions to ask.  [default: as many as the run's evaluation]",
)  # fmt: skip
@click.option(
    "--recipe", metavar="RECIPE",
    help="Recipe of the run, for one that has not been evaluated yet.",
)  # fmt: skip
@set_option
@store_option
@output_option
def checkpoints(
    run: str,
    steps: tuple[int, ...],
    questions: int | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    output: str,
) -> int:
    """Evaluate the checkpoints of a run, and show the curve.

    Each kept checkpoint answers the held-out questions on this machine, as the tuned model does in
    an evaluation, but without a judge. The run itself stays as it is. Answers are stored: the same
    command asks nothing twice. Training keeps two checkpoints, or all with
    train.keep_checkpoints=all.

    \b
    Examples:
      thinktune evaluate checkpoints RUN
      thinktune evaluate checkpoints RUN --step 20 --step 40 --questions 100
      thinktune evaluate checkpoints RUN --recipe demo --set train.keep_checkpoints=all
    """
    opened = open_store(store_url(store))
    request = _request(opened, run, recipe, overrides)
    task = request.task
    if questions is not None:
        spec = task.evaluate.model_copy(update={"questions": questions})
        task = task.model_copy(update={"evaluate": spec})
    request = request.model_copy(update={"task": task, "steps": steps})
    answered = ask_module(MODULE, request, ANSWERING)
    report = CheckpointsReport.model_validate_json(answered)
    if output == "json":
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        _show(report)
    return int(ExitCode.DONE)


def _request(
    store: Store, run: str, recipe: str | None, overrides: tuple[str, ...]
) -> CheckpointsRequest:
    """What the run's evaluation was told, or what the recipe says that it would be."""
    if recipe is not None:
        loaded, catalog = read(recipe, overrides)
        adapter = adapter_of(loaded, catalog, store)
        tasks = make_run(loaded, catalog, store.url, run, adapter=adapter).tasks
        train_sha256 = tasks["train"].result_digest()
        task = tasks["evaluate"]
        assert isinstance(task, EvaluateTask)
        return CheckpointsRequest(task=task, steps=(), train_sha256=train_sha256)
    if overrides:
        raise SpecInvalid("--set", "there is no recipe to override", "add --recipe RECIPE")
    remedy = "name its recipe: --recipe RECIPE, with every --set that the run was made with"
    key = task_key(run, "evaluate")
    place = store.location(key)
    try:
        task = EvaluateTask.parse(json.loads(store.get(key)), place)
    except ObjectMissing:
        fault = f"run {run} has not been evaluated, so that nothing says how"
        raise InputMissing(place, fault, remedy) from None
    except (ValueError, SpecInvalid):
        fault = "it was written by another version of thinktune"
        raise InputMissing(place, fault, remedy) from None
    # Where the store is seen from here, which may not be where the stage saw it.
    task = task.model_copy(update={"store": store.url})
    return CheckpointsRequest(task=task, steps=(), train_sha256=None)


def _show(report: CheckpointsReport) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [name for name in SHOWN if any(name in each.metrics for each in report.checkpoints)]
    for name in ("STEP", "VALIDATION LOSS", *(SHOWN[name] for name in shown), ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for each in report.checkpoints:
        loss = each.validation_loss
        table.add_row(
            str(each.step),
            "–" if loss is None else f"{loss:.4f}",
            *(_cell(each.metrics.get(name)) for name in shown),
            "selected" if each.selected else "",
        )
    Console(highlight=False).print(table)
    answers = f", {report.samples} answers to each" if report.samples > 1 else ""
    click.echo(f"{report.questions} questions{answers}; answered by {report.engine}")
    click.echo("In parentheses: the 95% interval over the questions.")


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    value = f"{100 * figure.value:.1f}%"
    if figure.ci95 is None:
        return value
    low, high = figure.ci95
    return f"{value} ({100 * low:.0f}–{100 * high:.0f})"
