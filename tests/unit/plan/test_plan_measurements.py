"""The plan against measured measurements. Those to `check` set none of its constants.

Memory is planned for the longest row that there was: how far a step fills its rows is chance.

`benchmarks/results/measurements.jsonl` says of each measurement how it was obtained.
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

FILE = Path(__file__).parents[3] / "benchmarks/results/measurements.jsonl"
MEASUREMENTS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
NODES = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}
MEMORY, SPEED = 0.05, 0.15


def name(measurement: dict[str, Any]) -> str:
    kind = f"{measurement['gpus']}x{NODES[measurement['gpu']]}-zero{measurement['zero_stage']}"
    kind += f"-rank{measurement['rank']}"
    again = f"{measurement['recompute']}-{measurement['recompute_mlps']}"
    kind += "-fp8" if measurement["fp8"] else f"-{measurement['path']}"
    return f"{measurement['use']}-{measurement['model']}-{kind}-{measurement['row_tokens']}-{again}"


def node(measurement: dict[str, Any]) -> HardwareEntry:
    return CATALOG.hardware[f"{NODES[measurement['gpu']]}x{measurement['gpus']}"]


def planned(measurement: dict[str, Any], tokens: int) -> tuple[Workload, Execution]:
    """`tokens`: those of the longest row that there was, or of the limit, which no step fills."""
    train = TrainSpec(
        batch_size=measurement["batch_size"] * measurement["gpus"],
        rank=measurement["rank"],
        dropout=measurement["dropout"],
        fp8=measurement["fp8"],
    )
    work = Workload(
        model=CATALOG.models[measurement["model"]],
        train=train,
        max_seq_len=16,
        gpus_per_node=measurement["gpus"],
        nodes=1,
        element_bytes=2,
        fused=measurement["path"] == "fused",
    )
    execution = Execution(
        num_processes=measurement["gpus"],
        micro_batch_tokens=tokens,
        recompute_layers=measurement["recompute"],
        recompute_mlps=measurement["recompute_mlps"],
        unpacked_layers=measurement["unpacked"],
        zero_stage=measurement["zero_stage"],
    )
    return work, execution


def test_there_are_enough_and_half_of_them_check() -> None:
    assert len(MEASUREMENTS) >= 24
    assert 2 * sum(measurement["use"] == "check" for measurement in MEASUREMENTS) >= len(
        MEASUREMENTS
    )
    assert {measurement["gpus"] for measurement in MEASUREMENTS} == {1, 2, 4}
    sizes = {measurement["model"].rsplit("-", 1)[-1] for measurement in MEASUREMENTS}
    assert sizes == {"1.5b", "8b", "32b", "70b"}
    assert len({name(measurement) for measurement in MEASUREMENTS}) == len(MEASUREMENTS)


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=name)
def test_memory(measurement: dict[str, Any]) -> None:
    causes = memory.gpu_memory(*planned(measurement, measurement["longest_row"]))
    found = memory.allocated(causes) / GIB
    assert found == pytest.approx(measurement["allocated_gib"], rel=MEMORY)
    device = measurement.get("device_gib")
    if "outside_gib" in measurement:
        device = measurement["reserved_gib"] + measurement["outside_gib"]
    if device is not None:
        assert sum(causes.values()) / GIB == pytest.approx(device, rel=MEMORY)


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=name)
def test_speed(measurement: dict[str, Any]) -> None:
    work, execution = planned(measurement, measurement["row_tokens"])
    found = speed.step_speed(work, node(measurement), execution, work.train.batch_size, 1000)
    assert found.tokens_per_s == pytest.approx(measurement["tokens_per_s"], rel=SPEED)
