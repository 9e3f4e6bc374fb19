"""Whole training steps of a real shape: tokens per second and peak memory.

    python benchmarks/train.py --model r1-distill-llama-8b --row-tokens 16384

One GPU, or one rank of several where RANK is set (`scaling` sets it).

Documents are lognormal with mean 1,000 and at most 4,096 tokens; only real tokens are counted.
Each step is the product's own: data, forward, backward, clipping, optimizer. `fused` and `plain`
are the product's two; `padded` is transformers + PEFT as a script would use them, padded batches
and all layers recomputed. Prints one JSON object.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from peft import PeftModel
from shapes import RandomWeights, configuration, documents, linears, random_base

from thinktune.recipes.compose import load_catalog
from thinktune.schema.recipe import TrainSpec
from thinktune.schema.stages import TrainTask
from thinktune.schema.task import Execution
from thinktune.store import open_store
from thinktune.tasks.model import fused
from thinktune.tasks.model.adapter import add_adapter
from thinktune.tasks.model.attention import choose_attention
from thinktune.tasks.model.base import local_device, recompute_layers
from thinktune.tasks.model.packed_row import PackedRow, RowLoss
from thinktune.tasks.model.parallel_load import from_weights
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.lifecycle import Lifecycle
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.sft.examples import Data
from thinktune.tasks.train.sft.loss import PlainLoss, choose_path
from thinktune.tasks.train.sft.objective import Row, SftObjective

WARMUP = 3


@dataclass(frozen=True)
class Case:
    """One configuration to measure."""

    model: str
    path: Literal["fused", "plain", "padded"] = "fused"
    row_tokens: int = 16384
    recompute: int = 0
    recompute_mlps: int = 0
    unpacked: int = 0
    batch_size: int = 64
    """Examples per GPU and optimizer step."""
    gpus: int = 1
    zero_stage: int = 0
    rank: int = 16
    dropout: float = 0.0
    fp8: bool = False
    steps: int = 10
    seed: int = 0
    """Of the documents' lengths."""


class PaddedLoss:
    """What a training script does without packing: examples padded to the longest of a batch."""

    def __init__(self, model: PeftModel) -> None:
        self._model = model

    def __call__(self, row: PackedRow) -> torch.Tensor:
        """The loss of the row's documents, padded; labels are all tokens, as the row's targets
        nearly are."""
        parts = list(torch.split(row.ids[0], list(row.lengths)))
        ids = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(p) for p in parts], True)
        labels = ids.masked_fill(mask == 0, -100)
        with torch.autocast("cuda", torch.bfloat16):
            loss: torch.Tensor = self._model(
                input_ids=ids, attention_mask=mask, labels=labels, use_cache=False
            ).loss
        return loss * len(row.targets)


class Longest:
    """A row loss that remembers how many tokens the longest row had: no step fills one."""

    def __init__(self, row_loss: RowLoss) -> None:
        self._row_loss = row_loss
        self.tokens = 0

    def __call__(self, row: PackedRow) -> torch.Tensor:
        """As the one within."""
        self.tokens = max(self.tokens, sum(row.lengths))
        return self._row_loss(row)


@dataclass(frozen=True)
class Training:
    """The product's training, and what is measured of it."""

    lifecycle: Lifecycle[Row]
    model: PeftModel
    metrics: Metrics
    longest: Longest


def make_training(case: Case, data: Data | None = None) -> Training:
    """The product's training over random weights, and random documents unless there is `data`."""
    entry = load_catalog().models[case.model]
    device, dtype = local_device(), torch.bfloat16
    torch.cuda.set_device(device)
    batch_size = case.batch_size * case.gpus
    spec = TrainSpec(
        batch_size=batch_size, rank=case.rank, dropout=case.dropout, epochs=1000, fp8=case.fp8
    )
    execution = Execution(
        micro_batch_tokens=case.row_tokens,
        recompute_layers=case.recompute,
        recompute_mlps=case.recompute_mlps,
        unpacked_layers=case.unpacked,
        zero_stage=case.zero_stage,
        num_processes=case.gpus,
    )
    task = TrainTask(
        run="benchmark",
        store=f"file://{tempfile.mkdtemp()}",
        model_name=case.model,
        model=entry,
        train=spec,
        execution=execution,
    )
    padded = case.path == "padded"
    accelerator = Accelerator()
    attention = "sdpa" if padded else choose_attention(device, dtype, entry.head_size)
    sharded = None
    if case.zero_stage == 3:
        config = configuration(entry)
        weights = RandomWeights(config)
        base, sharded = from_weights(
            config, weights, "nf4", dtype, device, attention=attention, divided=True
        )
    else:
        base = random_base(entry, attention)
    model = add_adapter(base, spec, entry)
    store = open_store(task.store)
    context = Context(store, "a", Reporter(store, "b", "train", "a", quiet=True), Stop())
    metrics = Metrics(Path(tempfile.mkdtemp()) / "metrics.jsonl", accelerator)
    checkpoints = Checkpoints(context, Identity("b", {}, "0" * 64), 2)
    if data is None:
        data = Data(documents(batch_size * 8, entry.vocabulary, case.seed), [])
    row_loss: RowLoss
    if case.path == "fused":
        if (reason := fused.why_not(model, dtype)) is not None:
            raise SystemExit(f"no fused path: {reason}")
        row_loss = choose_path(model, task, dtype, context, sharded)
    else:
        recompute_layers(model, entry.layers if padded else case.recompute)
        row_loss = PaddedLoss(model) if padded else PlainLoss(model, dtype)
    longest = Longest(row_loss)
    objective = SftObjective(task, context, accelerator, data, longest)
    lifecycle = Lifecycle(
        task, context, accelerator, model, objective, checkpoints, metrics, dtype=dtype
    )
    return Training(lifecycle, model, metrics, longest)


def measure(case: Case, *, profile: bool = False) -> dict[str, Any]:
    """Median of the steps after the warm-up, each timed with the GPU at rest on both sides."""
    began = time.monotonic()
    training = make_training(case)
    lifecycle = training.lifecycle
    loaded = time.monotonic() - began
    load_peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    rates, seconds = [], []
    for step in range(WARMUP + case.steps):
        wait_for_all()
        began = time.perf_counter()
        tokens = lifecycle.step(step)
        wait_for_all()
        seconds.append(time.perf_counter() - began)
        rates.append(tokens / seconds[-1])
    rate = statistics.median(rates[WARMUP:])
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    outside = total - free - torch.cuda.memory_reserved()
    rows = profiled(lifecycle, WARMUP + case.steps) if profile or case.gpus > 1 else []
    if profile:
        write_profile(rows)
    gemms = sum(p.numel() for p in linears(training.model))
    peak = gpu_peak(torch.cuda.get_device_name())
    figures = {
        **vars(case),
        "longest_row": training.longest.tokens,
        "tokens_per_s": round(rate),
        "slowest": round(min(rates[WARMUP:])),
        "allocated_gib": round(allocated / 2**30, 2),
        "reserved_gib": round(reserved / 2**30, 2),
        "outside_gib": round(outside / 2**30, 2),
        "load_peak_gib": round(load_peak / 2**30, 2),
        "step_s": round(statistics.median(seconds[WARMUP:]), 3),
        "communication_s": round(sum(s for name, s, _ in rows if "nccl" in name.lower()), 3),
        "share_of_peak_4n": round(4 * gemms * rate / peak / case.gpus, 3),
        "share_of_peak_6n": round(6 * gemms * rate / peak / case.gpus, 3),
        "load_s": round(loaded, 1),
    }
    del training, lifecycle
    gc.collect()
    torch.cuda.empty_cache()
    return figures


def wait_for_all() -> None:
    """Waits for this GPU and for the other ranks."""
    torch.cuda.synchronize()
    if dist.is_initialized():
        dist.barrier()
        torch.cuda.synchronize()


def profiled(lifecycle: Lifecycle[Row], step: int) -> list[tuple[str, float, int]]:
    """Kernels of one more step: name, seconds, calls; those of most time first."""
    with torch.profiler.profile() as profiler:
        lifecycle.step(step)
        torch.cuda.synchronize()
    rows = [e for e in profiler.key_averages() if e.self_device_time_total > 0]
    rows = [e for e in rows if e.device_type == torch.autograd.DeviceType.CUDA]
    found = [(e.key, e.self_device_time_total / 1e6, e.count) for e in rows]
    return sorted(found, key=lambda row: -row[1])


def write_profile(rows: list[tuple[str, float, int]]) -> None:
    """On stderr."""
    total = sum(seconds for _, seconds, _ in rows)
    for name, seconds, count in rows[:40]:
        line = f"{seconds * 1e3:9.1f} ms {seconds / total:6.1%} {count:6d} {name[:110]}\n"
        sys.stderr.write(line)


def gpu_peak(name: str) -> float:
    """Dense bf16 peak of this GPU in FLOP/s, from the catalog."""
    for entry in load_catalog().hardware.values():
        if entry.gpu.split("-")[0] in name.replace("-", " ").split():
            return entry.bf16_tflops * 1e12
    return float("nan")


def main() -> None:
    """One configuration from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r1-distill-qwen-1.5b")
    parser.add_argument("--path", choices=["fused", "plain", "padded"], default="fused")
    for name, value in vars(Case("")).items():
        if name not in ("model", "path"):
            option = f"--{name.replace('_', '-')}"
            kind = {"action": "store_true"} if value is False else {"type": type(value)}
            parser.add_argument(option, default=value, **kind)
    parser.add_argument("--profile", action="store_true", help="one more step, by kernel")
    options = vars(parser.parse_args())
    profile = options.pop("profile")
    figures = measure(Case(**options), profile=profile)
    versions = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    if int(os.environ.get("RANK", "0")) == 0:
        sys.stdout.write(json.dumps(figures | versions) + "\n")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
