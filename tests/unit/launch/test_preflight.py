"""What is advised where a stage finds no node: it must help, as asking again for it shows."""

from typing import Any

import pytest

from thinktune.launch.other_hardware import shortage_error
from thinktune.launch.preflight import Request, check_deadline, check_nodes
from thinktune.launch.runs import make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage
from thinktune.schema.termination import split_error

CATALOG = load_catalog()


class Nodes:
    """An API server that has nodes and no pods."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self._nodes = list(nodes)

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes

    def all_pods(self) -> list[dict[str, Any]]:
        return []


def gpu_node(hardware: str, *taints: str) -> dict[str, Any]:
    """As the catalog has it, with these taints besides NVIDIA's."""
    entry = CATALOG.hardware[hardware]
    keys = ("nvidia.com/gpu", *taints)
    return {
        "metadata": {"name": hardware, "labels": {"nvidia.com/gpu.product": entry.product}},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in keys]},
        "status": {
            "allocatable": {
                "cpu": str(entry.cpus),
                "memory": f"{int(entry.host_memory_gib)}Gi",
                "ephemeral-storage": "4000Gi",
                "nvidia.com/gpu": str(entry.num_gpus),
            }
        },
    }


def cpu_node(**taint: str) -> dict[str, Any]:
    has = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "4000Gi"}
    spec = {"taints": [taint]} if taint else {}
    return {
        "metadata": {"name": "cpu", "labels": {}},
        "spec": spec,
        "status": {"allocatable": has},
    }


def request(
    *changes: str, stages: tuple[Stage, ...] = STAGES, name: str | None = None, **settings: Any
) -> Request:
    cluster = Cluster.parse({"store": "s3://bucket", **settings}, "cluster.yaml")
    recipe = load_recipe("llama-70b", changes, catalog=CATALOG)
    run = make_run(recipe, CATALOG, cluster.store, name, until=stages[-1])
    return Request(run, recipe, CATALOG, cluster, stages)


def refused(asked: Request, *nodes: dict[str, Any]) -> str:
    found = check_nodes(asked, Nodes(*nodes), asked.stages)  # type: ignore[arg-type]
    return shortage_error(asked, asked.stages, found).remedy


def test_hardware_that_is_there_is_named_and_then_taken() -> None:
    nodes = (gpu_node("a100-80x8"), cpu_node())
    remedy = refused(request(), *nodes)
    assert "would be scheduled with --set hardware=a100-80x8" in remedy
    again = request("hardware=a100-80x8")
    assert check_nodes(again, Nodes(*nodes), STAGES).short is None  # type: ignore[arg-type]


def test_without_a_held_out_question_too() -> None:
    asked = request("data.split.test_rows=0", stages=("prep", "train"))
    assert "--set hardware=a100-80x8" in refused(asked, gpu_node("a100-80x8"), cpu_node())


def test_hardware_that_is_too_slow_for_the_deadline_is_not_named() -> None:
    nodes = (gpu_node("a100-80x1"), cpu_node())
    assert "--set hardware=a100-80x1" in refused(request(), *nodes)
    remedy = refused(request(deadline_hours=3), *nodes)
    assert "--set hardware" not in remedy


def test_other_hardware_is_another_run_unless_it_is_named() -> None:
    nodes = (gpu_node("a100-80x8"), cpu_node())
    alone = ("train",)
    assert "as another run, from prep on" in refused(request(stages=alone), *nodes)
    assert "another run" not in refused(request(stages=alone, name="mine"), *nodes)


def test_an_error_with_several_remedies_is_taken_apart_as_it_was_made() -> None:
    asked = request()
    nodes = Nodes(gpu_node("a100-80x8", "pool"), gpu_node("h100x8", "pool"), cpu_node())
    found = check_nodes(asked, nodes, asked.stages)  # type: ignore[arg-type]
    error = shortage_error(asked, asked.stages, found)
    assert error.remedy.count("; or ") == 1
    assert split_error(f"error: {error}") == (f"{error.place}: {error.fault}", error.remedy)


def test_a_message_of_somebody_else_s_is_no_remedy() -> None:
    error = ServiceUnavailable("a;b; c", "it said: no; go away", "wait; or ask")
    assert error.fault == "it said: no; go away"
    assert split_error(f"error: {error}") == ("a;b, c: it said: no, go away", "wait; or ask")


def test_where_to_tolerate_a_taint() -> None:
    tainted = gpu_node("h100x8", "pool")
    assert "tolerate pool in gpu_nodes of" in refused(request(), tainted, cpu_node())
    own = {"h100x4": {"node_selector": {}}}
    remedy = refused(request(hardware_nodes=own), tainted, cpu_node())
    assert "tolerate pool in hardware_nodes.h100x4 of" in remedy


def test_nobody_is_told_to_tolerate_a_node_that_is_ill() -> None:
    ill = cpu_node(key="node.kubernetes.io/not-ready", effect="NoSchedule")
    remedy = refused(request(), gpu_node("h100x8"), ill)
    assert "not-ready" not in remedy
    assert "--force" in remedy


def test_the_deadline_is_for_whichever_stage_is_planned_as_a_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = request("train.epochs=9", deadline_hours=1, stages=("evaluate",))
    check_deadline(asked.run, asked.cluster, asked.stages)
    monkeypatch.setitem(STAGE_INFO, "evaluate", STAGE_INFO["evaluate"]._replace(gpus="all"))
    with pytest.raises(SpecInvalid, match="deadline_hours ends it after 1"):
        check_deadline(asked.run, asked.cluster, asked.stages)
