"""Whether a cluster has nodes for a stage, and which GPUs are free: asked before anything is made.

Pure but for its two lists of objects. Called by `submit` and `doctor`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from thinktune.launch.cluster.api import Object
from thinktune.schema.catalog import GIB
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.values import (
    PlacementValues,
    ResourceValues,
    StorageValues,
    TopologyValues,
)

GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
"""Node label of GPU feature discovery."""
UNITS = {f"{letter}i": 2.0 ** (10 * n) for n, letter in enumerate("KMGTPE", 1)}
UNITS |= {letter: 1000.0**n for n, letter in enumerate("kMGTPE", 1)}
UNITS |= {"n": 1e-9, "u": 1e-6, "m": 1e-3}
NOT_FOR_PODS = (
    "node.kubernetes.io/", "node-role.kubernetes.io/", "node.cloudprovider.kubernetes.io/",
    "karpenter.sh/", "ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler",
)  # fmt: skip
"""Taints of nodes that are ill, leaving, or the control plane's."""
DAEMONS = {"DaemonSet", "Node"}
"""Kinds of owners whose pods stay on their node. A Node owns the pods that its kubelet runs by
itself."""


@dataclass(frozen=True)
class Node:
    """What a node can give."""

    name: str
    labels: dict[str, str]
    taints: tuple[Object, ...]
    gpus: int
    free_gpus: int
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int

    @property
    def product(self) -> str:
        """The GPU, as feature discovery names it."""
        return self.labels.get(PRODUCT, "GPU without a product label") if self.gpus else "no GPU"


def nodes_of(nodes: Sequence[Object], pods: Sequence[Object]) -> list[Node]:
    """Nodes that take pods, less the GPUs that pods on them have, and less what their daemons
    ask for."""
    taken: Counter[str] = Counter()
    daemons: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for pod in pods:
        where = pod["spec"].get("nodeName")
        owners = {owner["kind"] for owner in pod["metadata"].get("ownerReferences") or ()}
        for container in pod["spec"]["containers"]:
            resources = container.get("resources") or {}
            taken[where] += int((resources.get("limits") or {}).get(GPU, 0))
            if owners & DAEMONS:
                for name, asked in (resources.get("requests") or {}).items():
                    daemons[where][name] += quantity(asked)
    return [
        _node(node, taken[node["metadata"]["name"]], daemons[node["metadata"]["name"]])
        for node in nodes
        if not node["spec"].get("unschedulable")
    ]


def _node(node: Object, taken_gpus: int, by_daemons: Mapping[str, float]) -> Node:
    """What a node can give, from its object and from what pods on it have."""
    allocatable = node["status"].get("allocatable") or {}
    gpus = int(allocatable.get(GPU, 0))

    def left(resource: str) -> float:
        return quantity(allocatable.get(resource, "0")) - by_daemons.get(resource, 0.0)

    return Node(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels") or {},
        taints=tuple(node["spec"].get("taints") or ()),
        gpus=gpus,
        free_gpus=gpus - taken_gpus,
        cpu_millis=round(1000 * left("cpu")),
        memory_bytes=round(left("memory")),
        disk_bytes=round(left("ephemeral-storage")),
    )


def quantity(text: str) -> float:
    """A Kubernetes quantity: `500m`, `16Gi`, `2`, `1e3`."""
    for unit, size in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * size
    return float(text)


class Wanted(Protocol):
    """What is asked of nodes: chart values of a stage, or those of a server in its place."""

    @property
    def stage(self) -> Stage: ...
    @property
    def topology(self) -> TopologyValues: ...
    @property
    def resources(self) -> ResourceValues: ...
    @property
    def placement(self) -> PlacementValues: ...
    @property
    def storage(self) -> StorageValues: ...


@dataclass(frozen=True)
class Shortage:
    """Why a stage will never run on these nodes."""

    fault: str
    remedies: tuple[str, ...]
    """What to change in the cluster file or the cluster, for the most frequent reason first."""


def shortage(values: Wanted, nodes: Sequence[Node], section: str) -> Shortage | None:
    """What the stage asks for that these nodes do not have even when idle; None where they take it.

    `section` of the cluster file says where it goes.
    """
    wanted, gpus = values.topology.nodes, values.resources.gpus
    reasons: Counter[tuple[str, str]] = Counter()
    fitting = 0
    for node in nodes:
        unfit = _unfit(values, node, section)
        if unfit:
            reasons[unfit] += 1
        else:
            fitting += node.gpus // gpus if gpus else 1
    if fitting >= wanted or (fitting and not gpus):
        return None
    most = reasons.most_common(4)
    asked = f"{wanted} × {gpus} {_product(values)}" if gpus else "a node"
    why = ", ".join(f"{n} node{'s' * (n > 1)}: {reason}" for (reason, _), n in most)
    fault = f"it asks for {asked}, and the cluster has room for {fitting} ({why or 'no node'})"
    return Shortage(fault, tuple(dict.fromkeys(remedy for (_, remedy), _ in most if remedy)))


def _unfit(values: Wanted, node: Node, section: str) -> tuple[str, str] | None:
    """Why a node cannot take the stage, and the remedy, which may be empty; None where it can."""
    resources, placement = values.resources, values.placement
    for key, value in placement.node_selector.items():
        if node.labels.get(key) == value:
            continue
        if key != PRODUCT:
            return f"not {key}={value}", f"fix the node_selector of {section} in the cluster file"
        if node.gpus and PRODUCT not in node.labels:
            return node.product, "name such nodes by a label of theirs in hardware_nodes"
        return node.product, ""
    for taint in node.taints:
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(values, taint):
            tolerate = f"tolerate {taint['key']} in {section} of the cluster file"
            for_others = taint["key"].startswith(NOT_FOR_PODS)
            return f"tainted {taint['key']}", "" if for_others else tolerate
    larger = "add a larger node"
    if STAGE_INFO[values.stage].gpus == "none":
        larger += ", or lower prep in the cluster file"
    if node.gpus < resources.gpus:
        return f"only {node.gpus} {node.product}", ""
    if node.cpu_millis < resources.cpu_millis:
        return f"{node.cpu_millis / 1000:.1f} CPUs, not {resources.cpu_millis / 1000:.1f}", larger
    if node.memory_bytes < resources.memory_mib * 2**20:
        return f"{node.memory_bytes / GIB:.0f} GiB, not {resources.memory_mib / 1024:.0f}", larger
    own_disk = values.storage.scratch_storage_class is None
    if own_disk and node.disk_bytes < resources.disk_gib * GIB:
        fault = f"{node.disk_bytes / GIB:.0f} GiB of disk, not {resources.disk_gib}"
        return fault, "set scratch_storage_class in the cluster file"
    return None


def _tolerated(values: Wanted, taint: Object) -> bool:
    return any(
        t.key in (None, taint["key"])
        and t.effect in (None, taint["effect"])
        and (t.operator == "Exists" or (t.value or "") == (taint.get("value") or ""))
        for t in values.placement.tolerations
    )


def _product(values: Wanted) -> str:
    return values.placement.node_selector.get(PRODUCT, "GPU")


def free_gpus(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Numbers of free GPUs and of all GPUs, by product."""
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if node.gpus:
            free, every = found.get(node.product, (0, 0))
            found[node.product] = (free + node.free_gpus, every + node.gpus)
    return found
