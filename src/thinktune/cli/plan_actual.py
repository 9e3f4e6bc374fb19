"""`thinktune plan --actual RUN`: what a finished run took beside its plan.

Called by `plan`.
"""

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.plan.actual import stages_vs_actual
from thinktune.plan.run import RunPlan
from thinktune.plan.training.comparison import PlanVsActual, plan_vs_actual
from thinktune.schema.catalog import GIB
from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import open_store, read_manifest

TIMES = (
    "Times are of the attempts that finished: earlier attempts and waiting for nodes are not in"
    " them."
)


def show_actual(
    run: str, store: str, plan: RunPlan | None, console: Console, *, as_json: bool
) -> None:
    """Prints the plan of a run beside what it took: the one that it was started with, or for the
    stages around the training `plan`. Raises InputMissing if the run has not trained."""
    manifests = _manifests(run, store)
    metrics = manifests["train"].metrics
    pairs = (*plan_vs_actual(metrics), *stages_vs_actual(manifests, plan))
    if as_json:
        found = [pair.model_dump() | {"relative_error": pair.relative_error} for pair in pairs]
        click.echo(json.dumps(found, indent=1))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(run, no_wrap=True)
    for title in ("plan", "actual", "plan against actual"):
        table.add_column(title, justify="right", no_wrap=True)
    for pair in pairs:
        error = "" if pair.relative_error is None else f"{pair.relative_error:+.1%}"
        table.add_row(pair.what, _value(pair, pair.planned), _value(pair, pair.actual), error)
    console.print(table, soft_wrap=True)
    device = f"{metrics.get('ranks', 1)} × {metrics.get('device')}"
    console.print(Text(device, style="dim"), soft_wrap=True)
    console.print(Text(TIMES, style="dim"))


def _manifests(run: str, store: str) -> dict[Stage, Manifest]:
    opened = open_store(store)
    found: dict[Stage, Manifest] = {}
    for stage in STAGES:
        manifest = read_manifest(opened, stage_prefix(run, stage))
        if manifest is not None:
            found[stage] = manifest
    if "train" not in found:
        place = opened.location(stage_prefix(run, "train"))
        remedy = "compare a run whose training is finished; check its id, and --store"
        raise InputMissing(place, "this run has no finished training", remedy)
    return found


def _value(pair: PlanVsActual, value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value / GIB:.2f} GiB" if pair.what.endswith("bytes") else f"{value:,.0f}"
