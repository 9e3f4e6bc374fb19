"""`thinktune submit`: submits a run to a cluster and follows it to its end."""

import json
from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    context_option,
    name_option,
    output_option,
    read,
    read_cluster,
    recipe_argument,
    set_option,
    store_of,
)
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.conductor import run_pipeline
from thinktune.launch.preflight import Request
from thinktune.launch.runs import Run, adapter_of, make_run
from thinktune.launch.status.watch import Say
from thinktune.launch.submit import detach, left
from thinktune.launch.submit import submit as submit_run
from thinktune.schema.catalog import GIB
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import Store

WHOLE = "all"


@click.command()
@recipe_argument
@click.option(
    "--stage", "wanted", type=click.Choice([*STAGES, WHOLE]), multiple=True, default=(WHOLE,),
    show_default=True, help="Stage to run, once its inputs are there. Can be repeated.",
)  # fmt: skip
@click.option(
    "--follow/--detach", default=True, show_default=True,
    help="Stay and show the logs, or let the cluster start the stages.",
)  # fmt: skip
@name_option
@click.option("--force", is_flag=True, help="Submit even if no current node fits (autoscaler).")
@set_option
@cluster_option
@context_option
@output_option
def submit(
    recipe: str,
    wanted: tuple[str, ...],
    follow: bool,
    name: str | None,
    force: bool,
    overrides: tuple[str, ...],
    cluster_file: Path | None,
    context: str | None,
    output: str,
) -> int:
    """Submit a recipe to a cluster and follow it.

    First shows the plan and the free GPUs, and refuses what cannot fit or be scheduled. The same
    command adopts a run that is there and resumes one that failed. Ctrl-C stops following; the
    current stage continues in the cluster.

    \b
    Examples:
      thinktune submit qwen-32b --set data.path=audit.jsonl
      thinktune submit qwen-32b --detach
      thinktune submit qwen-32b --stage prep --stage train
    """
    as_json = output == "json"

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    cluster = read_cluster(cluster_file)
    loaded, catalog = read(recipe, overrides)
    stages: list[Stage] = [s for s in STAGES if WHOLE in wanted or s in wanted]
    store = store_of(cluster)
    adapter = adapter_of(loaded, catalog, store)
    made = make_run(loaded, catalog, cluster.store, name, until=stages[-1], adapter=adapter)
    kube = Kube(cluster.namespace, context)
    say(f"run {made.id} in namespace {cluster.namespace} of {kube.context}")
    say(f"artifacts in {store.url}")
    _say_plan(made, loaded.hardware, say)
    request = Request(made, loaded, catalog, cluster, stages, force)
    todo = submit_run(request, kube, store, say)
    if follow:
        _follow(made, todo, kube, store, say)
    elif left(todo, kube, store):
        detach(todo, cluster, kube, say)
        say(f"`thinktune status {made.id}` shows its state, `thinktune logs -f {made.id}` its log")
    else:
        say(f"finished already: `thinktune fetch {made.id}` downloads the adapter")
    if as_json:
        click.echo(json.dumps({"run": made.id, **todo.model_dump(mode="json")}, indent=1))
    return int(ExitCode.DONE)


def _follow(made: Run, todo: Pipeline, kube: Kube, store: Store, say: Say) -> None:
    try:
        run_pipeline(todo, kube, store, say, logs=True)
    except KeyboardInterrupt:
        rest = (
            ", and no other stage starts; --detach would start them" if len(todo.stages) > 1 else ""
        )
        say(f"\nstopped following {made.id}: its current stage continues in the cluster{rest}")
        say("the same command follows it again; `thinktune cancel` stops it")
        raise
    say(f"finished: `thinktune fetch {made.id}` downloads the adapter")


def _say_plan(made: Run, hardware: str, say: Say) -> None:
    plan = made.plan
    used, has = plan.gpu_total_bytes / GIB, plan.gpu_capacity_bytes / GIB
    memory = f", {used:.1f} of {has:.1f} GiB on each GPU" if has else ""
    took = "" if plan.hours is None else f", about {max(1, round(60 * plan.hours))} min of training"
    topology = plan.topology
    ranks = f"{topology.world_size} ranks, ZeRO {topology.zero_stage}"
    say(f"plan: {topology.nodes} × {hardware}, {ranks}{memory}{took}")
