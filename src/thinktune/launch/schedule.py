"""Whether a cluster has nodes for a stage, and which GPUs are free: asked before anything is made.

Pure but for its two lists of objects. Called by `submit` and `doctor`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from thinktune.launch.api import Object
from thinktune.plan.values import PRODUCT
from thinktune.spec.catalog import GIB, HardwareEntry
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.values import TaskValues

GPU = "nvidia.com/gpu"
UNITS = {f"{letter}i": 2.0 ** (10 * n) for n, letter in enumerate("KMGTPE", 1)}
UNITS |= {letter: 1000.0**n for n, letter in enumerate("kMGTPE", 1)}
UNITS |= {"n": 1e-9, "u": 1e-6, "m": 1e-3}
DAEMONS = {"DaemonSet", "Node"}
"""Who owns pods that stay on their node: the second are the kubelet's own."""


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
    found = []
    for node in nodes:
        if node["spec"].get("unschedulable"):
            continue
        name, has = node["metadata"]["name"], node["status"].get("allocatable") or {}
        gpus = int(has.get(GPU, 0))
        found.append(
            Node(
                name,
                node["metadata"].get("labels") or {},
                tuple(node["spec"].get("taints") or ()),
                gpus,
                gpus - taken[name],
                *(
                    round(scale * (quantity(has.get(what, "0")) - daemons[name][what]))
                    for what, scale in (("cpu", 1000), ("memory", 1), ("ephemeral-storage", 1))
                ),
            )
        )
    return found


def quantity(text: str) -> float:
    """A Kubernetes quantity: `500m`, `16Gi`, `2`, `1e3`."""
    for unit, size in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * size
    return float(text)


def check(values: TaskValues, nodes: Sequence[Node], remedy: str) -> None:
    """Raises SpecInvalid where no number of idle nodes of these would take the stage."""
    wanted, resources = values.topology.nodes, values.resources
    place = f"{values.stage} of {values.run}"
    reasons: Counter[str] = Counter()
    room = 0
    for node in nodes:
        reason = _unfit(values, node)
        if reason:
            reasons[reason] += 1
        else:
            room += node.gpus // resources.gpus if resources.gpus else 1
    if room >= wanted or (room and not resources.gpus):
        return
    asked = f"{wanted} × {resources.gpus} {_product(values)}" if resources.gpus else "a node"
    why = ", ".join(f"{n} node{'s' * (n > 1)}: {reason}" for reason, n in reasons.most_common(4))
    fault = f"it asks for {asked}, and the cluster has room for {room} ({why or 'no node'})"
    raise SpecInvalid(place, fault, remedy)


def _unfit(values: TaskValues, node: Node) -> str | None:
    resources, placement = values.resources, values.placement
    for key, value in placement.node_selector.items():
        if node.labels.get(key) != value:
            return node.product if key == PRODUCT else f"not {key}={value}"
    for taint in node.taints:
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(values, taint):
            return f"tainted {taint['key']}"
    if node.gpus < resources.gpus:
        return f"only {node.gpus} {node.product}"
    if node.cpu_millis < resources.cpu_millis:
        return f"{node.cpu_millis / 1000:.1f} CPUs, not {resources.cpu_millis / 1000:.1f}"
    if node.memory_bytes < resources.memory_mib * 2**20:
        return f"{node.memory_bytes / GIB:.0f} GiB, not {resources.memory_mib / 1024:.0f}"
    own_disk = values.storage.scratch_storage_class is None
    if own_disk and node.disk_bytes < resources.disk_gib * GIB:
        return f"{node.disk_bytes / GIB:.0f} GiB of disk, not {resources.disk_gib}"
    return None


def _tolerated(values: TaskValues, taint: Object) -> bool:
    return any(
        t.key == taint["key"]
        and t.effect in (None, taint["effect"])
        and (t.operator == "Exists" or t.value == taint.get("value"))
        for t in values.placement.tolerations
    )


def _product(values: TaskValues) -> str:
    return values.placement.node_selector.get(PRODUCT, "GPU")


def free_gpus(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Free and all GPUs by product."""
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if node.gpus:
            free, every = found.get(node.product, (0, 0))
            found[node.product] = (free + node.free_gpus, every + node.gpus)
    return found


def hardware_there(nodes: Sequence[Node], catalog: dict[str, HardwareEntry]) -> list[str]:
    """Names of catalog entries for which a node is there."""
    return [
        name
        for name, entry in catalog.items()
        if entry.num_gpus
        and any(n.labels.get(PRODUCT) == entry.product and n.gpus >= entry.num_gpus for n in nodes)
    ]
