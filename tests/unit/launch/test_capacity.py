"""What nodes can take, from objects as the API server gives them."""

from typing import Any

import pytest

from thinktune.launch.cluster.capacity import Node, free_gpus, nodes_of, quantity, shortage
from thinktune.launch.runs import make_run, stage_values
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.cluster import Cluster
from thinktune.schema.stages import STAGE_INFO
from thinktune.schema.values import TaskValues

CATALOG = load_catalog()
CLUSTER = Cluster(store="s3://bucket/p")
H100 = "NVIDIA-H100-80GB-HBM3"


def node(
    name: str, gpus: int, product: str = H100, disk: str = "5000Gi", **more: Any
) -> dict[str, Any]:
    has = {"cpu": "208", "memory": "1900Gi", "ephemeral-storage": disk} | (
        {"nvidia.com/gpu": str(gpus)} if gpus else {}
    )
    labels = {"nvidia.com/gpu.product": product} if gpus else {}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint] if gpus else [], **more},
        "status": {"allocatable": has},
    }


def pod(where: str, gpus: int) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(gpus)}
    containers = [{"resources": {"limits": limits}}]
    return {"metadata": {}, "spec": {"nodeName": where, "containers": containers}}


def daemon(where: str, cpu: str) -> dict[str, Any]:
    owner = {"ownerReferences": [{"kind": "DaemonSet"}]}
    containers = [{"resources": {"requests": {"cpu": cpu}}}]
    return {"metadata": owner, "spec": {"nodeName": where, "containers": containers}}


def values(*changes: str, cluster: Cluster = CLUSTER) -> TaskValues:
    recipe = load_recipe("llama-70b", changes, catalog=CATALOG)
    run = make_run(recipe, CATALOG, "s3://b/p")
    return stage_values(run, "train", cluster)


def fault_of(values: TaskValues, nodes: list[Node]) -> str:
    short = shortage(values, nodes, "gpu_nodes")
    assert short is not None
    return short.fault


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5),
        ("16Gi", 16 * 2**30),
        ("2", 2),
        ("7812k", 7_812_000),
        ("10T", 10**13),
        ("1Pi", 2**50),
        ("100n", 1e-7),
        ("1e3", 1000),
    ],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


def test_gpus_that_pods_have_are_not_free() -> None:
    nodes = nodes_of([node("a", 8), node("b", 8)], [pod("a", 4), pod("a", 2), pod("b", 8)])
    assert free_gpus(nodes) == {H100: (2, 16)}


def test_what_daemons_ask_for_is_not_there_for_us() -> None:
    (found,) = nodes_of([node("a", 8)], [daemon("a", "150"), daemon("b", "9"), pod("a", 8)])
    assert found.cpu_millis == 58_000
    assert "58.0 CPUs, not" in fault_of(values(), [found])


def test_a_node_that_fits_is_enough_though_it_is_busy() -> None:
    assert shortage(values(), nodes_of([node("a", 8)], [pod("a", 8)]), "gpu_nodes") is None


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "room for 0 (no node)"),
        ([node("a", 2)], f"1 node: only 2 {H100}"),
        ([node("a", 8, "NVIDIA-L4"), node("b", 8, "NVIDIA-L4")], "2 nodes: NVIDIA-L4"),
        ([node("a", 0)], "1 node: no GPU"),
        ([node("a", 8, disk="20Gi")], "20 GiB of disk, not "),
        ([node("a", 8, unschedulable=True)], "room for 0 (no node)"),
    ],
)
def test_what_can_never_be_scheduled_is_refused(nodes: list[dict[str, Any]], words: str) -> None:
    fault = fault_of(values(), nodes_of(nodes, []))
    assert f"4 {H100}" in fault
    assert words in fault


def test_two_pods_may_share_a_node_that_has_room_for_both() -> None:
    assert shortage(values("nodes=2"), nodes_of([node("a", 8)], []), "gpu_nodes") is None
    assert "2 × 4" in fault_of(values("nodes=2"), nodes_of([node("a", 4)], []))


def test_a_taint_that_nothing_tolerates() -> None:
    taint = {"key": "maintenance", "effect": "NoSchedule"}
    other = Node("a", {"nvidia.com/gpu.product": H100}, (taint,), 8, 8, 208000, 2**41, 2**43)
    short = shortage(values(), [other], "gpu_nodes")
    assert short is not None
    assert "tainted maintenance" in short.fault
    assert short.remedies == ("tolerate maintenance in gpu_nodes of the cluster file",)


@pytest.mark.parametrize(
    ("toleration", "taint", "taken"),
    [
        ({"key": "pool", "value": "llm"}, {"key": "pool", "value": "llm"}, True),
        ({"key": "pool", "value": "llm"}, {"key": "pool", "value": "other"}, False),
        ({"key": "pool"}, {"key": "pool"}, True),
        ({"key": "pool"}, {"key": "pool", "value": "llm"}, False),
        ({"key": "pool", "operator": "Exists"}, {"key": "pool", "value": "llm"}, True),
        ({"operator": "Exists"}, {"key": "anything", "value": "x"}, True),
    ],
)
def test_tolerations_as_kubernetes_has_them(
    toleration: dict[str, str], taint: dict[str, str], taken: bool
) -> None:
    cluster = Cluster.parse(
        {"store": "s3://bucket", "gpu_nodes": {"tolerations": [toleration]}}, "cluster.yaml"
    )
    tainted = node("a", 8)
    tainted["spec"]["taints"].append(taint | {"effect": "NoSchedule"})
    assert (
        shortage(values(cluster=cluster), nodes_of([tainted], []), "gpu_nodes") is None
    ) == taken


def test_what_the_cluster_file_can_lower_is_named_for_every_stage_without_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = nodes_of([node("small", 0) | {"status": {"allocatable": {"cpu": "1"}}}], [])

    def remedies() -> tuple[str, ...]:
        asked = values("hardware=h100x8").model_copy(update={"stage": "evaluate"})
        on_cpus = asked.resources.model_copy(update={"gpus": 0})
        placement = asked.placement.model_copy(update={"node_selector": {}})
        wanted = asked.model_copy(update={"resources": on_cpus, "placement": placement})
        short = shortage(wanted, small, "cpu_nodes")
        assert short is not None
        return short.remedies

    assert remedies() == ("add a larger node",)
    monkeypatch.setitem(STAGE_INFO, "evaluate", STAGE_INFO["evaluate"]._replace(gpus="none"))
    assert remedies() == ("add a larger node, or lower prep in the cluster file",)


def test_a_digest_is_looked_up_by_the_name_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGE_INFO, "train", STAGE_INFO["train"]._replace(image="prep"))
    digests = {"prep": "sha256:" + 64 * "1", "train": "sha256:" + 64 * "2"}
    images = {"registry": "r.io/t", "digests": digests}
    cluster = Cluster.parse({"store": "s3://bucket/p", "images": images}, "cluster.yaml")
    assert values(cluster=cluster).image.reference == f"r.io/t/prep@sha256:{64 * '1'}"
