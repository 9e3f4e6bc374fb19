"""`thinktune serve` on a cluster, and `thinktune promote`."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from thinktune.cli.options import (
    cluster_described,
    cluster_option,
    context_option,
    optional_run_argument,
    own_jobs,
    read_cluster,
    store_of,
)
from thinktune.launch.cluster.charts import manifests, values_text
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.artifacts import newest_run
from thinktune.launch.serving.follow import follow
from thinktune.launch.serving.live import LiveServer
from thinktune.launch.serving.planned import Before, PlannedServer, ServerRequest, plan_server
from thinktune.launch.serving.promote import promote as promote_run
from thinktune.launch.serving.serve import serve as serve_runs
from thinktune.launch.serving.sizing import ServeWishes
from thinktune.launch.serving.values import KEY_ENTRY, key_secret_of, server_release
from thinktune.recipes.compose import Catalog, load_catalog, recipe_names
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import stage_prefix
from thinktune.schema.serve import ServeTask
from thinktune.store import Store

DIGEST = re.compile(r"-[0-9a-f]{8}$")
"""How the id of a run ends that nobody has named."""
SETTINGS = ("limits", "times")
"""What `--set` can change of a server's task."""

OPTIONS = (
    click.option("--name", metavar="SERVER",
        help="Name of the server, and of the model that `thinktune promote` changes.  "
        "[default: that of the recipe]"),
    click.option("--replicas", type=click.IntRange(min=1), metavar="N",
        help="Number of servers.  [default: 1, or as many as there are]"),
    click.option("--hardware", metavar="NAME",
        help="Hardware of the catalog.  [default: the smallest in the cluster that fits]"),
    click.option("--precision", type=click.Choice(["16bit", "fp8", "awq", "nf4"]),
        help="Precision of the weights.  [default: that of the training]"),
    click.option("--nodes", type=click.IntRange(min=1), metavar="N",
        help="Nodes that one server divides its model over.  [default: 1]"),
    click.option("--adapters", type=click.IntRange(min=1), default=2, metavar="N",
        help="Places for adapters on the GPU, for runs that are promoted later.  [default: 2]"),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
        help="Change a limit or a time of the server, as in --set limits.requests=64."),
    click.option("--detach", is_flag=True, help="Do not wait until it is ready."),
    click.option("--force", is_flag=True,
        help="Install even if no current node fits (autoscaler)."),
    click.option("--render", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
        help="Write chart values and manifests for GitOps, and install nothing."),
    cluster_option,
    context_option,
)  # fmt: skip


@dataclass(frozen=True)
class OnCluster:
    """What is asked of a cluster."""

    name: str | None
    replicas: int | None
    hardware: str | None
    precision: Any
    nodes: int | None
    adapters: int
    settings: tuple[str, ...]
    detach: bool
    force: bool
    render: Path | None
    cluster_file: Path | None
    context: str | None


def cluster_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of a server on a cluster, as one parameter `on_cluster`."""

    @functools.wraps(command)
    def collected(**given: Any) -> int:
        names = OnCluster.__dataclass_fields__
        on_cluster = OnCluster(**{name: given.pop(name) for name in names})
        return command(on_cluster=on_cluster, **given)

    for option in reversed(OPTIONS):
        collected = option(collected)
    return collected


def serve_on_cluster(
    names: Sequence[str],
    asked: OnCluster,
    *,
    window: int | None,
    engine: Any,
    unpromoted: bool,
) -> int:
    """Installs or changes a server, and follows it until it is ready."""
    if asked.cluster_file is None and not cluster_described():
        fault = "neither a cluster file nor --local says where"
        remedy = "add --local to serve on this machine, or name a cluster file with --cluster"
        raise SpecInvalid("thinktune serve", fault, remedy)
    cluster, catalog = read_cluster(asked.cluster_file), load_catalog(own_jobs())
    store = store_of(cluster)
    runs = [_run_of(name, store, click.echo) for name in names]
    request = _request(runs, asked, cluster, catalog, window=window, unpromoted=unpromoted)
    task = request.task.model_copy(update={"engine": engine})
    request = ServerRequest(**{**vars(request), "task": task})
    if asked.render is not None:
        planned = plan_server(request, store, Before())
        return _render(planned, cluster, asked.render)
    kube = Kube(cluster.namespace, asked.context)
    click.echo(f"server {request.name} in namespace {cluster.namespace} of {kube.context}")
    planned = serve_runs(request, kube, store, click.echo)
    if not asked.detach:
        try:
            server = follow(request.name, planned.values.seconds.progress, kube, store, click.echo)
        except KeyboardInterrupt:
            click.echo(f"\nstopped following; `thinktune why {request.name}` says how far it is")
            raise
        _say_ready(server, click.echo)
    _say_how(request.name, cluster, click.echo)
    return int(ExitCode.DONE)


def _run_of(name: str, store: Store, say: Callable[[str], None]) -> str:
    """The run of that id; for a recipe's name, its newest run that is trained."""
    if store.head(f"{stage_prefix(name, 'train')}/manifest.json") is not None:
        return name
    if name in recipe_names(own_jobs()):
        found = newest_run(name, store)
        if found is None:
            fault = f"no run of recipe {name} is trained"
            raise InputMissing(store.url, fault, f"train one: thinktune submit {name}")
        say(f"{name}: its newest run is {found}")
        return found
    return name  # what it lacks is said where its artifacts are read


def _request(
    runs: Sequence[str],
    asked: OnCluster,
    cluster: Cluster,
    catalog: Catalog,
    *,
    window: int | None,
    unpromoted: bool,
) -> ServerRequest:
    if asked.name is None and not runs:
        remedy = "name a run, or a server that is there with --name"
        raise SpecInvalid("thinktune serve", "nothing is named that could be served", remedy)
    if asked.hardware is not None and asked.hardware not in catalog.hardware:
        known = ", ".join(sorted(catalog.hardware))
        fault = f"hardware '{asked.hardware}' is not in the catalog"
        raise SpecInvalid("--hardware", fault, f"known: {known}")
    name = asked.name or server_name(runs[0])
    return ServerRequest(
        name=name,
        runs=runs,
        task=_task(cluster, asked.settings),
        hardware=asked.hardware,
        wishes=ServeWishes(asked.precision, window, asked.nodes, asked.adapters),
        replicas=asked.replicas,
        unpromoted=unpromoted,
        cluster=cluster,
        catalog=catalog.hardware,
        force=asked.force,
    )


def server_name(run: str) -> str:
    """A server's name where none is given: the recipe's, as the run's id has it."""
    recipe = DIGEST.sub("", run)
    return recipe if recipe != run else f"{run}-server"


def _task(cluster: Cluster, settings: Sequence[str]) -> ServeTask:
    """Limits and times of a server. Raises SpecInvalid for a setting that there is not."""
    plain: dict[str, Any] = {"run": "server", "store": cluster.store}  # named by its plan
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, dot, field = key.partition(".")
        if not equals or not dot or section not in SETTINGS:
            fault = f"'{setting}' is no setting of a server"
            raise SpecInvalid("--set", fault, "write limits.NAME=VALUE or times.NAME=VALUE")
        try:
            plain.setdefault(section, {})[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecInvalid("--set", f"'{value}' is no value", "write a number") from None
    return ServeTask.parse(plain, "--set")


def _render(planned: PlannedServer, cluster: Cluster, folder: Path) -> int:
    name, values = planned.facts.name, values_text(planned.values)
    rendered = manifests(server_release(name), cluster.namespace, values, chart="serve")
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".values.yaml", values), (".yaml", rendered)):
        path = folder / f"{name}{suffix}"
        path.write_text(text, encoding="utf-8")
        click.echo(path)
    secret = key_secret_of(name, cluster)
    make = f"kubectl -n {cluster.namespace} create secret generic {secret}"
    click.echo(f"clients' key: {make} --from-literal={KEY_ENTRY}=…", err=True)
    return int(ExitCode.DONE)


def _say_ready(server: LiveServer, say: Callable[[str], None]) -> None:
    runs = ", ".join(each.run for each in server.desired.runs) if server.desired else "?"
    replicas = "1 replica" if server.ready == 1 else f"{server.ready} replicas"
    say(f"{server.name} is ready: {replicas}, serving {runs}")


def _say_how(name: str, cluster: Cluster, say: Callable[[str], None]) -> None:
    namespace, release = cluster.namespace, server_release(name)
    secret = key_secret_of(name, cluster)
    say("")
    say("chat page and API at http://127.0.0.1:8080 :")
    say(f"  kubectl -n {namespace} port-forward service/{release} 8080:80")
    say("key of clients:")
    say(
        f"  kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.{KEY_ENTRY}}}'"
        " | base64 -d"
    )
    say(f"from pods of the cluster: http://{release}.{namespace}.svc/v1, model {name}")
    expose = cluster.serve.expose
    if expose is not None:
        say(f"from elsewhere: {expose.scheme}://{expose.host}/")
    say(f"another run behind it: thinktune promote RUN --to {name}")


@click.command()
@optional_run_argument
@click.option("--to", "server", metavar="SERVER", required=True, help="Server that is to serve it.")
@click.option("--undo", is_flag=True, help="Go back to the run that was served before.")
@click.option(
    "--unpromoted", is_flag=True,
    help="Promote a run that its evaluation did not promote, or that has no evaluation.",
)  # fmt: skip
@cluster_option
@context_option
def promote(
    run: str | None,
    server: str,
    undo: bool,
    unpromoted: bool,
    cluster_file: Path | None,
    context: str | None,
) -> int:
    """Put a run behind the name of a server while it serves.

    Every replica loads its adapter beside the one that it has, and then answers with it; requests
    that are being answered keep theirs. A run that its evaluation did not promote is refused.

    \b
    Examples:
      thinktune promote RUN --to SERVER
      thinktune promote --undo --to SERVER
    """
    if undo == (run is not None):
        fault = "name either a run or --undo"
        raise SpecInvalid("thinktune promote", fault, "as in: thinktune promote RUN --to SERVER")
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    promote_run(run, server, kube, store, click.echo, unpromoted=unpromoted)
    return int(ExitCode.DONE)
