"""The plan of evaluations against what was measured: each rate, start and peak of a result file.

Four of the ten rates set the constants of the speed. The other six did not.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from planning import CATALOG

from thinktune.plan import shapes
from thinktune.plan.evaluation import memory, plan, speed
from thinktune.plan.evaluation.memory import Answering
from thinktune.schema.catalog import GIB, HardwareEntry
from thinktune.schema.recipe import TrainSpec

ROOT = Path(__file__).parents[3]
FILE = ROOT / "benchmarks/results/2026-11-30-h200-generation.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
PARTS = {line["part"]: line for line in LINES if "part" in line}
FITTED = {
    ("call:16bit", "base"),
    ("packed:nf4:16:128", "base"),
    ("packed:nf4:16:128", "tuned"),
    ("transformers:nf4:326:192", "base"),
}
WITHIN, MEMORY_WITHIN = 0.2, 0.05
NODE = CATALOG.hardware["h200x1"]
DEMO = CATALOG.models["smollm2-135m"]


class Cell(NamedTuple):
    part: str
    arm: str

    @property
    def measured(self) -> float:
        rate: float = PARTS[self.part][f"{self.arm}_tokens_per_s"]
        return rate

    @property
    def predicted(self) -> float:
        work = answering(self.part)
        seconds = speed.arm_seconds(work, node(self.part), first=self.arm == "base").most
        return work.requests * work.max_new_tokens / seconds


CELLS = [Cell(part, arm) for part in PARTS for arm in ("base", "tuned")]


def answering(part: str) -> Answering:
    """What `benchmarks/generation.py` asks: prompts of 60 to 360 tokens, no answer ends early."""
    kind, base, *less = part.split(":")
    questions, tokens = map(int, less) if less else (326, 1024)
    model = CATALOG.models["r1-distill-qwen-1.5b"]
    return Answering(
        model=model,
        engine="vllm" if kind in ("call", "vllm") else "transformers",
        base="nf4" if base == "nf4" else "16bit",
        element_bytes=2,
        adapter=shapes.adapter_parameters(model, TrainSpec(batch_size=1, rank=16)),
        rank=16,
        requests=questions,
        prompt_tokens=210,
        longest_prompt_tokens=360,
        max_new_tokens=tokens,
        window=360 + tokens,
        batch_size=16 if kind == "packed" else None,
    )


def node(part: str) -> HardwareEntry:
    """The part `packed` unpacks its base at each use, as one without memory for the unpacked."""
    return NODE.model_copy(update={"gpu_memory_gib": 4}) if part.startswith("packed") else NODE


def test_most_rates_set_no_constant() -> None:
    assert len(CELLS) == 10
    assert set(CELLS) >= FITTED
    assert len(FITTED) < len(CELLS) / 2


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_rate(cell: Cell) -> None:
    assert cell.predicted == pytest.approx(cell.measured, rel=WITHIN)


@pytest.mark.parametrize("part", [part for part in PARTS if part.startswith(("call", "vllm"))])
def test_start_of_vllm(part: str) -> None:
    start = plan.VLLM_START_S + shapes.released_bytes(answering(part).model) / plan.LOAD_BYTES_PER_S
    assert start == pytest.approx(PARTS[part]["start_s"], rel=WITHIN)


@pytest.mark.parametrize("part", [part for part, line in PARTS.items() if "peak_gib" in line])
def test_peak_of_memory(part: str) -> None:
    causes = memory.answering_memory(answering(part), node(part))
    allocated = sum(causes.values()) - causes["cuda_context"]
    assert allocated / GIB == pytest.approx(PARTS[part]["peak_gib"], rel=MEMORY_WITHIN)


def test_the_demo_on_a_cpu() -> None:
    """3½ minutes on 2026-11-30 (docs/tested.md), with longest prompts and answers as they were: of
    base, asked and tuned. The share of a CPU's peak is fitted to it."""
    found = plan.TRANSFORMERS_START_S
    for longest, limit in ((76, 112), (106, 112), (76, 82)):
        work = Answering(
            model=DEMO,
            engine="transformers",
            base="nf4",
            element_bytes=4,
            adapter=shapes.adapter_parameters(DEMO, TrainSpec(batch_size=8, rank=16)),
            rank=16,
            requests=120,
            prompt_tokens=longest - 10,
            longest_prompt_tokens=longest,
            max_new_tokens=limit,
            window=longest + limit,
            batch_size=120,
        )
        found += speed.arm_seconds(work, CATALOG.hardware["cpu"], first=False).most
    assert found == pytest.approx(210, rel=WITHIN)


def test_the_documented_table_is_what_the_code_computes() -> None:
    text = (ROOT / "docs/explain/planning.md").read_text(encoding="utf-8")
    for cell in CELLS:
        fitted = "fitted" if cell in FITTED else "predicted"
        error = cell.predicted / cell.measured - 1
        row = (
            f"| `{cell.part}` | {cell.arm} | {cell.measured:,} | {cell.predicted:,.0f} |"
            f" {error:+.0%} | {fitted} |"
        )
        assert row in text
