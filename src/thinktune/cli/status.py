"""`thinktune status` and `thinktune why`: how far a run is, and why it is in that state."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.options import (
    cluster_option,
    context_option,
    optional_run_argument,
    output_option,
    read_cluster,
    run_argument,
    stage_option,
    store_of,
)
from thinktune.cli.servers import explain_server, named_server, server_facts, show_servers
from thinktune.launch.cluster.charts import release_name
from thinktune.launch.cluster.install import CONDUCTOR
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.live import LiveServer, live_servers
from thinktune.launch.status.chain import abandoned, broken_chain, first_that_matters
from thinktune.launch.status.observed import Observed, known_runs, observe, observe_all
from thinktune.launch.status.why import look
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import Store

WIDE = 1000
AT_ONCE = 16
"""Number of stages that are looked up at once. Each takes half a dozen round trips."""
COLORS = {"done": "green", "running": "cyan", "failed": "red", "pending": "yellow"}


@click.command()
@optional_run_argument
@cluster_option
@context_option
@output_option
def status(run: str | None, cluster_file: Path | None, context: str | None, output: str) -> int:
    """List runs and servers, or show the stages of one run, or one server.

    Shows state, step, estimated time left, tokens/s, loss, age of the heartbeat and restarts; of
    a server, which runs it serves and how many of its replicas are ready.

    \b
    Examples:
      thinktune status
      thinktune status RUN --output json
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    servers: list[LiveServer] = []
    if run is None:
        stages = [each for each in _observe_runs(kube, store) if each.state != "absent"]
        servers = live_servers(kube, store)
    elif (server := named_server(run, kube, store)) is not None:
        stages, servers = [], [server]
    else:
        stages = observe_all(run, kube, store)
    if output == "json":
        facts = [_facts(each) for each in stages] + [server_facts(each) for each in servers]
        click.echo(json.dumps(facts, indent=1))
        return int(ExitCode.DONE)
    if not stages and not servers:
        click.echo(f"no runs in namespace {cluster.namespace} or {store.url}")
    if stages:
        # As wide as it is: names are there to be copied.
        Console(highlight=False, width=WIDE).print(_table(stages), soft_wrap=True)
    if servers:
        if stages:
            click.echo()
        show_servers(servers)
    return int(ExitCode.DONE)


def _observe_runs(kube: Kube, store: Store) -> list[Observed]:
    every = [(run, stage) for run in known_runs(kube, store) for stage in STAGES]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda each: observe(each[0], each[1], kube, store), every))


def _facts(each: Observed) -> dict[str, Any]:
    progress, metrics = each.progress, each.manifest.metrics if each.manifest else {}
    figures = progress.figures if progress else {}
    age = each.heartbeat_age_s()
    return {
        "run": each.run,
        "stage": each.stage,
        "state": each.state,
        "done": progress.done if progress else None,
        "of": progress.of if progress else None,
        "unit": progress.unit if progress else None,
        "phase": progress.phase if progress else None,
        "eta_s": progress.eta_s if progress and each.state == "running" else None,
        "tokens_per_s": metrics.get("tokens_per_s", figures.get("tok/s")),
        "loss": metrics.get("last_loss", figures.get("loss")),
        "heartbeat_age_s": None if age is None else round(age),
        "restarts": each.restarts,
    }


def _table(stages: Sequence[Observed]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("RUN", "STAGE", "STATE", "AT", "ETA", "TOK/S", "LOSS", "HEARTBEAT", "RESTARTS"):
        numbers = name in ("ETA", "TOK/S", "LOSS", "HEARTBEAT", "RESTARTS")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True)
    for each in stages:
        facts = _facts(each)
        color = COLORS.get(each.state, "dim")
        running = each.state in ("running", "stopping")
        at = f"{facts['done']}/{facts['of']} {facts['unit']}" if facts["of"] else "-"
        table.add_row(
            each.run,
            each.stage,
            f"[{color}]{each.state}[/]",
            at if each.state != "done" else "-",
            _span(facts["eta_s"]),
            _number(facts["tokens_per_s"], 0),
            _number(facts["loss"], 4),
            _span(facts["heartbeat_age_s"]) if running else "-",
            str(each.restarts) if each.job or each.restarts else "-",
        )
    return table


def _number(value: object, digits: int) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "-"


def _span(seconds: float | None) -> str:
    """Formats a duration as kubectl does: 42s, 7m, 3h12m."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02}m"


@click.command()
@run_argument
@stage_option
@cluster_option
@context_option
@output_option
def why(
    run: str, stage: Stage | None, cluster_file: Path | None, context: str | None, output: str
) -> int:
    """Explain the state of a run or of a server in one paragraph.

    Gives cause, evidence and remedy. Exits with 0 if nothing is wrong, else with the exit code of
    the fault.

    \b
    Examples:
      thinktune why RUN
      thinktune why RUN --stage train
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    server = named_server(run, kube, store)
    if server is not None:
        return explain_server(server, kube, as_json=output == "json")
    stages = observe_all(run, kube, store)
    chosen = [each for each in stages if stage in (None, each.stage)]
    name = release_name(run, CONDUCTOR)
    pods = kube.pods(f"job-name={name}")
    said = broken_chain(stages, [each.stage for each in chosen])
    said = said or abandoned(stages, kube.job(name), pods)
    said = said or look(first_that_matters(chosen), kube)
    if output == "json":
        facts = {"cause": said.cause, "evidence": said.evidence, "remedy": said.remedy}
        click.echo(json.dumps({**facts, "code": int(said.code)}, indent=1))
    else:
        click.echo(said.paragraph())
    return int(said.code)
