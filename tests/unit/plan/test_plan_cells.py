"""The plan against measured cells. Those to `check` set none of its constants.

Memory is planned for the longest row that there was: how far a step fills its rows is chance.

`benchmarks/results/cells.jsonl` says of each cell how it was obtained.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from planning import CATALOG

from thinktune.plan.training import memory, speed
from thinktune.plan.training.memory import Workload
from thinktune.schema.catalog import GIB, HardwareEntry
from thinktune.schema.recipe import TrainSpec
from thinktune.schema.task import Execution

FILE = Path(__file__).parents[3] / "benchmarks/results/cells.jsonl"
CELLS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
NODES = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}
MEMORY, SPEED = 0.05, 0.15


def name(cell: dict[str, Any]) -> str:
    kind = f"{cell['gpus']}x{NODES[cell['gpu']]}-zero{cell['zero_stage']}-rank{cell['rank']}"
    again = f"{cell['recompute']}-{cell['recompute_mlps']}"
    kind += "-fp8" if cell["fp8"] else f"-{cell['path']}"
    return f"{cell['use']}-{cell['model']}-{kind}-{cell['row_tokens']}-{again}"


def node(cell: dict[str, Any]) -> HardwareEntry:
    return CATALOG.hardware[f"{NODES[cell['gpu']]}x{cell['gpus']}"]


def planned(cell: dict[str, Any], tokens: int) -> tuple[Workload, Execution]:
    """`tokens`: those of the longest row that there was, or of the limit, which no step fills."""
    train = TrainSpec(
        batch_size=cell["batch_size"] * cell["gpus"],
        rank=cell["rank"],
        dropout=cell["dropout"],
        fp8=cell["fp8"],
    )
    work = Workload(
        model=CATALOG.models[cell["model"]],
        train=train,
        window=16,
        gpus_per_node=cell["gpus"],
        nodes=1,
        element_bytes=2,
        fused=cell["path"] == "fused",
    )
    execution = Execution(
        num_processes=cell["gpus"],
        micro_batch_tokens=tokens,
        recompute_layers=cell["recompute"],
        recompute_mlps=cell["recompute_mlps"],
        unpacked_layers=cell["unpacked"],
        zero_stage=cell["zero_stage"],
    )
    return work, execution


def test_there_are_enough_and_half_of_them_check() -> None:
    assert len(CELLS) >= 24
    assert 2 * sum(cell["use"] == "check" for cell in CELLS) >= len(CELLS)
    assert {cell["gpus"] for cell in CELLS} == {1, 2, 4}
    sizes = {cell["model"].rsplit("-", 1)[-1] for cell in CELLS}
    assert sizes == {"1.5b", "8b", "32b", "70b"}
    assert len({name(cell) for cell in CELLS}) == len(CELLS)


@pytest.mark.parametrize("cell", CELLS, ids=name)
def test_memory(cell: dict[str, Any]) -> None:
    causes = memory.gpu_memory(*planned(cell, cell["longest_row"]))
    found = memory.allocated(causes) / GIB
    assert found == pytest.approx(cell["allocated_gib"], rel=MEMORY)
    device = cell.get("device_gib")
    if "outside_gib" in cell:
        device = cell["reserved_gib"] + cell["outside_gib"]
    if device is not None:
        assert sum(causes.values()) / GIB == pytest.approx(device, rel=MEMORY)


@pytest.mark.parametrize("cell", CELLS, ids=name)
def test_speed(cell: dict[str, Any]) -> None:
    work, execution = planned(cell, cell["row_tokens"])
    found = speed.step_speed(work, node(cell), execution, work.train.batch_size, 1000)
    assert found.tokens_per_s == pytest.approx(cell["tokens_per_s"], rel=SPEED)
