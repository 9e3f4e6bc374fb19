"""`thinktune evaluate lm-eval`: tasks of lm-evaluation-harness on a run's adapter and its base."""

import os
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.options import output_option, run_argument, store_option, store_url
from thinktune.launch.local import ANSWERING, ask_module
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.harness import LmEvalReport, LmEvalRequest


@click.command("lm-eval")
@run_argument
@click.option(
    "--tasks", metavar="NAME,…", required=True, help="Names of tasks or groups, with commas."
)
@click.option(
    "--include-path", type=click.Path(file_okay=False, path_type=Path),
    required=True, metavar="FOLDER", help="Folder of the task files.",
)  # fmt: skip
@click.option(
    "--base", type=click.Choice(["nf4", "16bit"]), show_default="that of the training",
    help="Precision of the base under the adapter.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, metavar="N",
    help="Requests that are computed at once.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1), metavar="N",
    help="Ask N documents of each task alone, to try it out.",
)  # fmt: skip
@store_option
@output_option
def lm_eval(
    run: str,
    tasks: str,
    include_path: Path,
    base: Literal["nf4", "16bit"] | None,
    batch_size: int,
    limit: int | None,
    store: str | None,
    output: str,
) -> int:
    """Ask RUN's model and its base tasks of lm-evaluation-harness.

    Task files and their data are on this machine; nothing is downloaded but the run's adapter and
    model, from its store. Paths in task files count from the current folder. Needs the package
    lm-eval.

    \b
    Examples:
      thinktune evaluate lm-eval RUN --tasks medqa --include-path tasks/
    """
    request = LmEvalRequest(
        store=store_url(store),
        run=run,
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
        include_path=str(include_path.absolute()),
        base=base,
        batch_size=batch_size,
        limit=limit,
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    answered = ask_module("thinktune.tasks.evaluate.harness", request, ANSWERING)
    if output == "json":
        click.echo(answered.rstrip())
    else:
        _show(LmEvalReport.model_validate_json(answered))
    return int(ExitCode.DONE)


def _show(report: LmEvalReport) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("task", "metric", "base", "tuned", "documents", "kind"):
        table.add_column(title, justify="right" if title in ("base", "tuned") else "left")
    for name, task in report.tasks.items():
        for metric, figure in task.figures.items():
            base = _cell(figure.base, figure.base_stderr)
            tuned = _cell(figure.tuned, figure.tuned_stderr)
            table.add_row(name, metric, base, tuned, str(task.documents), task.kind)
    Console(highlight=False).print(table)
    click.echo(f"{report.model} ({report.base}), lm-eval {report.lm_eval}. {report.note}")


def _cell(value: float | None, stderr: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" + (f" ± {stderr:.4f}" if stderr is not None else "")
