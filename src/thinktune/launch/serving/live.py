"""A server as the cluster has it: its release, its runs, its pods, and what each replica says.

Used by all that asks about servers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import INSTANCE_LABEL, SERVER_LABEL, SERVERS, Kube
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import replicas_prefix
from thinktune.schema.serve import ServeTask
from thinktune.schema.served import SERVED_FILE, Desired, ReplicaState
from thinktune.store import ObjectMissing, Store

Parsed = TypeVar("Parsed", Desired, ServeTask)
State = Literal["starting", "ready", "partly ready", "stopping", "scaled to 0"]
RANK_LABELS = (
    "leaderworkerset.sigs.k8s.io/worker-index",
    "apps.kubernetes.io/pod-index",
)
"""Labels with a pod's number among the nodes of one server."""


@dataclass(frozen=True)
class LiveServer:
    """One server."""

    name: str
    workload: Object
    pods: Sequence[Object]
    """All its pods, the newest first."""
    desired: Desired | None
    """What its ConfigMap says; None where that is gone."""
    replicas: dict[str, ReplicaState]
    """What replicas say, by pod."""

    @property
    def release(self) -> str:
        """Name of the release and of all that has its name."""
        return str(self.workload["metadata"]["name"])

    @property
    def entrances(self) -> list[Object]:
        """The pods that clients reach and that are not on their way out."""
        return [pod for pod in self.pods if is_entrance(pod) and not is_leaving(pod)]

    @property
    def wanted(self) -> int:
        """Number of replicas that are asked for."""
        if self.workload["kind"] == "StatefulSet":
            return 1
        return int(self.workload["spec"].get("replicas", 1))

    @property
    def ready(self) -> int:
        """Number of replicas that answer."""
        return sum(is_ready(pod) for pod in self.entrances)

    @property
    def settled(self) -> bool:
        """Whether the controller has seen the last change, and every replica is new and ready."""
        status, spec = self.workload.get("status") or {}, self.workload["spec"]
        generation = int(self.workload["metadata"].get("generation", 0))
        seen = int(status.get("observedGeneration", generation)) >= generation
        if self.workload["kind"] == "StatefulSet":
            nodes = int(spec.get("replicas", 1))
            updated = int(status.get("updatedReplicas", nodes))
            return seen and int(status.get("readyReplicas", 0)) >= nodes and updated == nodes
        updated, ready = int(status.get("updatedReplicas", 0)), int(status.get("readyReplicas", 0))
        alone = int(status.get("replicas", 0)) <= updated
        return seen and alone and min(updated, ready) >= self.wanted

    @property
    def state(self) -> State:
        """In a word or two."""
        if self.workload["metadata"].get("deletionTimestamp"):
            return "stopping"
        if self.wanted == 0:
            return "scaled to 0"
        if self.ready == 0:
            return "starting"
        return "ready" if self.settled else "partly ready"


def is_entrance(pod: Object) -> bool:
    """Whether clients reach a pod: of several nodes, the first."""
    labels = pod["metadata"].get("labels") or {}
    # A LeaderWorkerSet's pods have both, and then the second one counts its groups.
    return next((labels[name] == "0" for name in RANK_LABELS if name in labels), True)


def is_leaving(pod: Object) -> bool:
    """Whether a pod is being deleted or has ended."""
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return ended or "deletionTimestamp" in pod["metadata"]


def is_ready(pod: Object) -> bool:
    """Whether a pod's readiness probe succeeds."""
    conditions = pod["status"].get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def live_servers(kube: Kube, store: Store, name: str | None = None) -> list[LiveServer]:
    """The servers of the namespace, or the one of that name."""
    labels = SERVERS if name is None else f"{SERVERS},{SERVER_LABEL}={name}"
    found = []
    for workload in kube.workloads(labels):
        server = workload["metadata"]["labels"].get(SERVER_LABEL, "")
        release = workload["metadata"]["name"]
        seen = desired_of(release, kube)
        found.append(
            LiveServer(
                name=server,
                workload=workload,
                pods=kube.pods(f"{INSTANCE_LABEL}={release},{SERVERS}"),
                desired=None if seen is None else seen[1],
                replicas=replica_states(server, store),
            )
        )
    return found


def live_server(name: str, kube: Kube, store: Store) -> LiveServer | None:
    """One server; None where there is none of that name."""
    found = live_servers(kube, store, name)
    return found[0] if found else None


def known_server(name: str, kube: Kube, store: Store) -> LiveServer:
    """One server. Raises InputMissing where there is none of that name."""
    found = live_server(name, kube, store)
    if found is None:
        servers = ", ".join(sorted(each.name for each in live_servers(kube, store))) or "none"
        fault = f"there is no server '{name}', only: {servers}"
        remedy = f"start it: thinktune serve RUN --name {name}"
        raise InputMissing(f"namespace {kube.namespace}", fault, remedy)
    return found


def desired_of(release: str, kube: Kube) -> tuple[Object, Desired] | None:
    """The ConfigMap with the runs that a server serves, and what it says. Raises SpecInvalid where
    somebody has written nonsense into it."""
    name = f"{release}-adapters"
    there = kube.config_map_object(name)
    if there is None:
        return None
    return there, _parsed(Desired, (there.get("data") or {}).get(SERVED_FILE), name)


def task_of(release: str, kube: Kube) -> ServeTask | None:
    """The task of a server's pods; None where there is no such release."""
    data = kube.config_map(release)
    return None if data is None else _parsed(ServeTask, data.get("task.json"), release)


def _parsed(kind: type[Parsed], text: str | None, name: str) -> Parsed:
    place = f"ConfigMap {name}"
    try:
        plain = json.loads(text or "")
    except ValueError:
        fault = "it does not hold what a server reads"
        raise SpecInvalid(place, fault, "install the server again") from None
    return kind.parse(plain, place)


def replica_states(server: str, store: Store) -> dict[str, ReplicaState]:
    """What replicas of a server have said, those that are gone included, by pod."""
    found = {}
    for info in store.list(replicas_prefix(server)):
        try:
            state = ReplicaState.parse(json.loads(store.get(info.key)), info.key)
        except (ObjectMissing, ValueError, SpecInvalid):
            continue  # removed meanwhile, or of another version
        found[state.pod] = state
    return found
