"""Brings a server to a cluster: checks first, then one Helm release, installed or upgraded.

The same command again changes what differs: a new size replaces pods one by one, other runs are
followed by the pods that are there.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import thinktune
from thinktune.launch.cluster import capacity
from thinktune.launch.cluster.api import Forbidden
from thinktune.launch.cluster.charts import HelmFault, HelmRefused, values_text
from thinktune.launch.cluster.install import Foreign, install, installed_values, upgrade
from thinktune.launch.cluster.kube import SERVER_LABEL, Kube
from thinktune.launch.preflight import secret_remedy, secrets_of
from thinktune.launch.serving.artifacts import Servable, check_same_base, read_servable
from thinktune.launch.serving.desired import change_desired
from thinktune.launch.serving.live import desired_of, task_of
from thinktune.launch.serving.sizing import ServeWishes, size_server
from thinktune.launch.serving.values import (
    KEY_ENTRY,
    SERVE_IMAGE,
    ServerFacts,
    key_secret_of,
    serve_values,
    server_release,
    server_task,
)
from thinktune.launch.status.watch import Say
from thinktune.launch.values import nodes_for
from thinktune.schema.catalog import HardwareEntry
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.keys import replicas_prefix
from thinktune.schema.serve import BASE_MODEL, ServeTask
from thinktune.schema.serve_values import ServeValues, Workload
from thinktune.schema.served import Desired
from thinktune.schema.stages import Stage
from thinktune.schema.values import (
    PlacementValues,
    ResourceValues,
    StorageValues,
    TopologyValues,
)
from thinktune.store import Store

SERVE_CHART = "serve"
KEY_BYTES = 32


@dataclass(frozen=True)
class ServerRequest:
    """What is asked of a cluster."""

    name: str
    runs: Sequence[str]
    """Empty keeps what the server serves."""
    task: ServeTask
    """Limits and times; the rest of it is decided here."""
    hardware: str | None
    wishes: ServeWishes
    replicas: int | None
    """None keeps the number that there is, and begins with one."""
    unpromoted: bool
    cluster: Cluster
    catalog: Mapping[str, HardwareEntry]
    force: bool = False
    """Install although no node there could take it: an autoscaler may bring one."""


@dataclass(frozen=True)
class PlannedServer:
    """A server as it is to be installed."""

    facts: ServerFacts
    values: ServeValues
    runs: Sequence[Servable]


@dataclass(frozen=True)
class Before:
    """What is there of a server before a command."""

    desired: Desired | None = None
    task: ServeTask | None = None
    values: Mapping[str, Any] | None = None


def plan_server(
    request: ServerRequest, store: Store, before: Before, workload: Workload | None = None
) -> PlannedServer:
    """Raises SpecInvalid where runs do not go together or nothing fits, InputMissing where an
    artifact is missing. `workload`: for several nodes, what the cluster can run."""
    _check_name(request.name, request.runs)
    runs = _servable(request, store, before)
    check_same_base(runs)
    wishes = _kept(request.wishes, before)
    slots = max(wishes.slots, len(runs))
    size = size_server(
        runs, _hardware(request, before), replace(wishes, slots=slots), request.catalog
    )
    kind: Workload = "deployment" if size.nodes == 1 else workload or "leaderworkerset"
    replicas = request.replicas or int((before.values or {}).get("replicas", 1))
    if kind == "statefulset" and replicas > 1:
        fault = "several servers over several nodes each need LeaderWorkerSet, which is not there"
        remedy = "install it (https://lws.sigs.k8s.io), or leave --replicas out"
        raise SpecInvalid(f"server {request.name}", fault, remedy)
    facts = ServerFacts(
        name=request.name,
        desired=_desired(runs, before.desired),
        task=server_task(request.name, _limits_kept(request.task, before), size, slots),
        size=size,
        replicas=replicas,
        workload=kind,
    )
    node = request.catalog[size.hardware]
    values = serve_values(facts, node, request.cluster, thinktune.__version__)
    return PlannedServer(facts, values, runs)


def _kept(wishes: ServeWishes, before: Before) -> ServeWishes:
    """What nobody asks for now stays as it was asked for before."""
    if before.task is None:
        return wishes
    execution = before.task.execution
    return ServeWishes(
        precision=wishes.precision or (execution.precision if execution else None),
        window=wishes.window or before.task.window,
        nodes=wishes.nodes or (execution.nodes if execution else None),
        slots=max(wishes.slots, before.task.adapters),
    )


def _hardware(request: ServerRequest, before: Before) -> str | None:
    known = (before.values or {}).get("hardware")
    return request.hardware or (known if known in request.catalog else None)


def _limits_kept(task: ServeTask, before: Before) -> ServeTask:
    """The task with the limits and times of before, but for those that are set now."""
    if before.task is None:
        return task
    limits, times = task.limits, task.times
    changed = {name: getattr(limits, name) for name in limits.model_fields_set}
    slower = {name: getattr(times, name) for name in times.model_fields_set}
    return task.model_copy(
        update={
            "limits": before.task.limits.model_copy(update=changed),
            "times": before.task.times.model_copy(update=slower),
            "engine": task.engine if task.engine != "auto" else before.task.engine,
        }
    )


def _check_name(name: str, runs: Sequence[str]) -> None:
    server_release(name)
    if name in (*runs, BASE_MODEL) or not name[:1].isalpha():
        fault = f"'{name}' cannot be a server's name"
        remedy = "choose one with --name that begins with a letter and is not a run's, nor 'base'"
        raise SpecInvalid("--name", fault, remedy)


def _servable(request: ServerRequest, store: Store, before: Before) -> list[Servable]:
    if request.runs:
        return [
            read_servable(run, store, unpromoted=request.unpromoted)
            for run in dict.fromkeys(request.runs)
        ]
    if before.desired is None:
        fault = f"there is no server '{request.name}' yet, and no run is named"
        raise SpecInvalid("thinktune serve", fault, "name a run: thinktune serve RUN")
    return [read_servable(each.run, store, unpromoted=True) for each in before.desired.runs]


def _desired(runs: Sequence[Servable], before: Desired | None) -> Desired:
    asked = tuple(run.desired for run in runs)
    if before is None:
        return Desired(revision=1, runs=asked)
    same = [(each.run, each.train_sha256) for each in before.runs] == [
        (each.run, each.train_sha256) for each in asked
    ]
    if same:
        return before
    former = before.first if before.first.run != asked[0].run else before.former
    return Desired(revision=before.revision + 1, runs=asked, former=former)


def serve(request: ServerRequest, kube: Kube, store: Store, say: Say) -> PlannedServer:
    """Installs the server or changes the one that is there.

    Raises what `plan_server` raises, InputMissing where a secret is missing, Foreign where the name
    is somebody else's, and what the store and the API raise.
    """
    release = server_release(request.name)
    before = read_before(request.name, kube)
    if before.values is None and next(iter(store.list(f"runs/{request.name}")), None) is not None:
        fault = f"there is a run '{request.name}', and names tell servers from runs"
        raise SpecInvalid("--name", fault, "choose another name with --name")
    workload: Workload = "deployment"
    if (_kept(request.wishes, before).nodes or 1) > 1:
        workload = "leaderworkerset" if kube.has_leader_worker_sets() else "statefulset"
    request = replace(request, hardware=_hardware(request, before))
    available = _hardware_there(request, kube)
    planned = plan_server(replace(request, catalog=available), store, before, workload)
    for run in planned.runs:
        say(f"{run.run}: {run.judged}")
    say(f"plan: {planned.facts.size.said}")
    _say_precision(planned, say)
    _check_kind(planned, release, kube)
    _check_secrets(request.cluster, kube)
    _check_nodes(planned, request, kube, say)
    _ensure_key(request, kube, say)
    if before.desired is not None and before.desired != planned.facts.desired:
        # First, so that Helm finds there what it is to write.
        change_desired(request.name, release, before.desired, planned.facts.desired, kube)
    _bring(planned, release, before, kube, say)
    return planned


def _hardware_there(request: ServerRequest, kube: Kube) -> Mapping[str, HardwareEntry]:
    """The hardware to choose from: what nodes of the cluster have, by their labels. With hardware
    that is named, or nodes that are not ours to see, all of the catalog."""
    if request.hardware is not None:
        return request.catalog
    try:
        nodes = capacity.nodes_of(kube.nodes(), ())
    except Forbidden:
        return request.catalog
    most: dict[str, int] = {}
    for node in nodes:
        most[node.product] = max(node.gpus, most.get(node.product, 0))
    there = {
        name: entry
        for name, entry in request.catalog.items()
        if entry.num_gpus
        and (
            name in request.cluster.hardware_nodes
            or most.get(entry.product or "", 0) >= entry.num_gpus
        )
    }
    cpus = {name: entry for name, entry in request.catalog.items() if not entry.num_gpus}
    return there or cpus or request.catalog


def read_before(name: str, kube: Kube) -> Before:
    """What is there. Raises Foreign where the release of that name is no server's."""
    release = server_release(name)
    values = installed_values(release, kube)
    if values is not None and values.get("server") != name:
        fault = "that name is taken by something else"
        raise Foreign(f"release {release}", fault, "choose another one with --name")
    seen = desired_of(release, kube)
    return Before(None if seen is None else seen[1], task_of(release, kube), values)


def _say_precision(planned: PlannedServer, say: Say) -> None:
    """Precision decides answers (docs/explain/serving-plan.md)."""
    execution, base = planned.facts.size.execution, planned.runs[0].base
    if execution is not None and execution.precision != base:
        say(f"note: its evaluation judged it on {base}, and this is {execution.precision}")


def _check_kind(planned: PlannedServer, release: str, kube: Kube) -> None:
    """Raises SpecInvalid where another kind of workload has the name: Helm would run both."""
    wanted = f"{planned.values.workload}"
    for there in kube.workloads(f"{SERVER_LABEL}={planned.facts.name}"):
        if there["kind"].lower() != wanted and there["metadata"]["name"] == release:
            fault = f"it runs as a {there['kind']}, and is to run as a {wanted}"
            remedy = f"end it first: thinktune cancel {planned.facts.name}"
            raise SpecInvalid(f"server {planned.facts.name}", fault, remedy)


def _check_secrets(cluster: Cluster, kube: Kube) -> None:
    for secret in secrets_of(cluster):
        if secret == cluster.identity.model_hub_secret:
            continue
        try:
            keys = kube.secret_keys(secret)
        except Forbidden:
            return  # the pod will say
        if keys is None:
            fault = f"no secret {secret}, which the cluster file names"
            place = f"namespace {cluster.namespace}"
            raise InputMissing(place, fault, secret_remedy(cluster, secret))


def _ensure_key(request: ServerRequest, kube: Kube, say: Say) -> None:
    """The Secret with the key; one of the server's own is made. The key itself is shown nowhere."""
    name = key_secret_of(request.name, request.cluster)
    place = f"namespace {request.cluster.namespace}"
    make = f"kubectl -n {request.cluster.namespace} create secret generic {name}"
    remedy = f"{make} --from-literal={KEY_ENTRY}=$(openssl rand -hex 32)"
    if request.cluster.serve.key_secret is None:
        labels = {SERVER_LABEL: request.name}
        try:
            if kube.create_secret(name, labels, {KEY_ENTRY: secrets.token_urlsafe(KEY_BYTES)}):
                say(f"made the Secret {name}, which has the key of clients")
                return
        except Forbidden as error:
            fault = f"the Secret {name} with the key of clients cannot be made ({error.fault})"
            raise InputMissing(place, fault, remedy) from None
    try:
        keys = kube.secret_keys(name)
    except Forbidden:
        return
    if KEY_ENTRY not in (keys or ()):
        fault = f"no secret {name} with an entry '{KEY_ENTRY}', the key of clients"
        raise InputMissing(place, fault, remedy)


@dataclass(frozen=True)
class _Demand:
    """What all replicas together ask of nodes, as `capacity` takes it."""

    topology: TopologyValues
    resources: ResourceValues
    placement: PlacementValues
    storage: StorageValues
    stage: Stage = SERVE_IMAGE


def _check_nodes(planned: PlannedServer, request: ServerRequest, kube: Kube, say: Say) -> None:
    """Raises SpecInvalid where no node there can ever take it."""
    values, size = planned.values, planned.facts.size
    try:
        nodes = capacity.nodes_of(kube.nodes(), ())
    except Forbidden as error:
        say(f"cluster: nodes unknown ({error.fault})")
        return
    count = values.replicas * values.nodes
    demand = _Demand(
        TopologyValues(nodes=count, processes_per_node=1, shards=1),
        values.resources,
        values.placement,
        values.storage,
    )
    section, _ = nodes_for(SERVE_IMAGE, size.gpus, size.hardware, request.cluster)
    short = capacity.shortage(demand, nodes, section)
    if short is not None and not request.force:
        remedies = [*short.remedies, "name other hardware with --hardware", "or --force"]
        place = f"server {request.name} on {size.hardware}"
        raise SpecInvalid(place, short.fault, ", ".join(remedies))


def _bring(planned: PlannedServer, release: str, before: Before, kube: Kube, say: Say) -> None:
    ours = planned.values.model_dump(mode="json", by_alias=True)
    if before.values is not None:
        changed = [name for name in ours if ours[name] != before.values.get(name)]
        if not changed:
            say(f"{planned.facts.name}: there already, just so")
            return
        upgrade(release, SERVE_CHART, kube, values_text(planned.values))
        say(f"{planned.facts.name}: changed ({', '.join(changed)})")
        return
    refusal = install(release, SERVE_CHART, kube, values_text(planned.values))
    if refusal is not None:
        raise _refused(release, refusal)
    say(f"{planned.facts.name}: installed")


def _refused(release: str, refusal: HelmRefused) -> Exception:
    if refusal.why is HelmFault.MADE_WITHOUT_HELM:
        return Foreign(f"release {release}", refusal.fault, "choose another name with --name")
    remedy = "the same command again goes on from what is there"
    return ServiceUnavailable(f"release {release}", refusal.fault, remedy)


def forget_replicas(name: str, store: Store) -> None:
    """Removes what replicas of a server have said."""
    store.delete_prefix(replicas_prefix(name))
