"""What `status`, `why`, `logs`, `cancel` and `delete` do where a server is named, and no run."""

import json
import time
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from thinktune.launch.cluster.kube import SERVER_LABEL, SERVERS, Kube
from thinktune.launch.serving.explain import explain
from thinktune.launch.serving.live import LiveServer, live_server
from thinktune.launch.status.tail import Tail
from thinktune.schema.errors import InputMissing
from thinktune.schema.exit_codes import ExitCode
from thinktune.store import Store

WIDE = 1000
POLL_S = 1.0
COLORS = {"ready": "green", "partly ready": "yellow", "starting": "cyan"}


def named_server(name: str, kube: Kube, store: Store) -> LiveServer | None:
    """The server of that name; None where the name is a run's, or nobody's."""
    # The cluster first: ending a run needs no store.
    if not kube.workloads(f"{SERVERS},{SERVER_LABEL}={name}"):
        return None
    if next(iter(store.list(f"runs/{name}")), None) is not None:
        return None
    return live_server(name, kube, store)


def show_servers(servers: Sequence[LiveServer]) -> None:
    """One row for each server, with what it serves and how many replicas do."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("SERVER", "STATE", "READY", "SERVES", "ALSO"):
        table.add_column(name, no_wrap=True)
    for server in servers:
        facts = server_facts(server)
        table.add_row(
            server.name,
            f"[{COLORS.get(server.state, 'dim')}]{server.state}[/]",
            f"{server.ready}/{server.wanted}",
            _served(facts),
            ", ".join(facts["runs"][1:]) or "-",
        )
    Console(highlight=False, width=WIDE).print(table, soft_wrap=True)


def _served(facts: dict[str, Any]) -> str:
    """The run behind its name; while a promotion is on its way, how far that is."""
    if not facts["runs"]:
        return "-"
    behind = f" ({facts['following']}/{facts['replicas']})"
    whole = facts["following"] == facts["replicas"]
    return str(facts["runs"][0]) + ("" if whole else behind)


def server_facts(server: LiveServer) -> dict[str, Any]:
    """What is known of a server, as JSON has it."""
    desired = server.desired
    states = [server.replicas.get(pod["metadata"]["name"]) for pod in server.entrances]
    revision = desired.revision if desired is not None else 0
    return {
        "server": server.name,
        "state": server.state,
        "ready": server.ready,
        "wanted": server.wanted,
        "replicas": len(states),
        "following": sum(s is not None and s.revision >= revision for s in states),
        "revision": revision,
        "runs": [each.run for each in desired.runs] if desired is not None else [],
        "former": desired.former.run if desired is not None and desired.former else None,
    }


def explain_server(server: LiveServer, kube: Kube, *, as_json: bool) -> int:
    """Says why it is in its state; the exit code of the fault, or 0."""
    said = explain(server, kube)
    if as_json:
        facts = {"cause": said.cause, "evidence": said.evidence, "remedy": said.remedy}
        click.echo(json.dumps({**facts, "code": int(said.code)}, indent=1))
    else:
        click.echo(said.paragraph())
    return int(said.code)


def server_logs(server: LiveServer, kube: Kube, store: Store, *, follow: bool) -> int:
    """The logs of its pods, which are gone when they are; with `follow`, as they come."""
    if not server.pods:
        raise InputMissing(f"log of {server.name}", "it has no pods", explain(server, kube).remedy)
    if not follow:
        several = len(server.pods) > 1
        for pod in reversed(server.pods):
            name = str(pod["metadata"]["name"])
            for line in kube.log(name) if pod["status"].get("phase") != "Pending" else ():
                click.echo(f"[{name}] {line}" if several else line)
        return int(ExitCode.DONE)
    tail = Tail(kube, click.echo)
    try:
        while (now := live_server(server.name, kube, store)) is not None:
            tail.follow(now.pods)
            time.sleep(POLL_S)
    finally:
        tail.close()
    return int(ExitCode.DONE)
