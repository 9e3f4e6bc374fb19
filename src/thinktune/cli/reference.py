"""`thinktune compare RUN --reference NAME`: a run beside the published figures of a job."""

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from thinktune.recipes.references import beside, load_reference, reference_names
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import MetricValue
from thinktune.schema.reference import ComparedReference, Reference
from thinktune.schema.report import Report
from thinktune.store import ObjectMissing, Store, file_key, read_manifest

MISSING = "–"

reference_option = click.option(
    "--reference", metavar="NAME", type=click.Choice(reference_names()),
    help="Set the runs beside the published figures of a job: "
    f"{', '.join(reference_names())}.",
)  # fmt: skip


def compare_with(name: str, runs: Sequence[str], store: Store, output: str) -> int:
    """Prints the reference beside each run. Raises SpecInvalid for a name that is none,
    InputMissing for a run without an evaluation."""
    reference = load_reference(name)
    found = [_compared(name, reference, run, store) for run in runs]
    if output == "json":
        data = {"reference": reference.model_dump(mode="json")}
        data["runs"] = {each.run: each.model_dump(mode="json") for each in found}
        click.echo(json.dumps(data, indent=1, ensure_ascii=False))
        return int(ExitCode.DONE)
    for each in found:
        _show(reference, each)
    return int(ExitCode.DONE)


def _compared(name: str, reference: Reference, run: str, store: Store) -> ComparedReference:
    prefix = stage_prefix(run, "evaluate")
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"run {run} has no evaluation"
        raise InputMissing(store.location(prefix), fault, "evaluate it first, or name another run")
    key = file_key(store, prefix, manifest, "report.json")
    try:
        report = Report.parse(json.loads(store.get(key)), store.location(key))
    except (ObjectMissing, ValueError, SpecInvalid):
        report = None  # of another version; the manifest has the figures
    return beside(name, reference, run, manifest.metrics, report)


def _show(reference: Reference, found: ComparedReference) -> None:
    click.echo(f"{reference.title}: {reference.source}")
    table = Table(box=None, pad_edge=False)
    for title in ("", "reference: base", "tuned", f"{found.run}: base", "tuned", "p"):
        table.add_column(title, justify="right" if title else "left")
    for figure in found.figures:
        cells = [*figure.reference, *figure.run]
        p = f"{figure.p:.3f}" if isinstance(figure.p, float) else ""
        table.add_row(figure.label, *(_cell(each, figure.unit) for each in cells), p)
    Console(highlight=False).print(table)
    for name, text in reference.setting.items():
        click.echo(f"{name} of the reference: {text}")
    for figure in found.figures:
        if figure.note:
            click.echo(f"{figure.label}: {figure.note}")
    click.echo("what differs:")
    for text in found.differences:
        click.echo(f"  - {text}")


def _cell(value: MetricValue, unit: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING
    if unit == "share":
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if unit == "tokens" else f"{value:.3g}"
