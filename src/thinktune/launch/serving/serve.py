"""Brings a server to a cluster: checks first, then one Helm release, installed or upgraded.

The same command again changes what differs: a new size replaces pods one by one, other runs are
followed by the pods that are there.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from thinktune.launch.cluster import capacity
from thinktune.launch.cluster.api import Forbidden
from thinktune.launch.cluster.charts import HelmFault, HelmRefused, values_text
from thinktune.launch.cluster.install import Foreign, install, installed_values, upgrade
from thinktune.launch.cluster.kube import SERVER_LABEL, Kube
from thinktune.launch.preflight import secret_remedy, secrets_of
from thinktune.launch.serving.desired import change_desired
from thinktune.launch.serving.live import desired_of, task_of
from thinktune.launch.serving.planned import (
    Before,
    PlannedServer,
    ServerRequest,
    kept_hardware,
    kept_wishes,
    plan_server,
)
from thinktune.launch.serving.values import KEY_ENTRY, SERVE_IMAGE, key_secret_of, server_release
from thinktune.launch.status.watch import Say
from thinktune.launch.values import nodes_for
from thinktune.schema.catalog import HardwareEntry
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid
from thinktune.schema.serve_values import Workload
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
    if (kept_wishes(request.wishes, before).nodes or 1) > 1:
        workload = "leaderworkerset" if kube.has_leader_worker_sets() else "statefulset"
    request = replace(request, hardware=kept_hardware(request, before))
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
