"""What FP8 products do to the loss of a real model: 300 steps of the demo, on the CPU.

    python benchmarks/fp8_emulated.py

SmolLM2-135M in NF4 on the demo's own questions, once with the frozen products in fp32 and once with
their operands rounded as `thinktune.tasks.model.fused.fp8` rounds them (e4m3, a scale per row, both
ways). Sums are in fp32 as there. Only the rounding is emulated, so only the loss means anything.
Takes half an hour on two cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from thinktune.launch.local import run_local
from thinktune.launch.runs import make_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.keys import stage_prefix
from thinktune.schema.stages import TrainTask
from thinktune.store import fetch, open_store, read_manifest
from thinktune.tasks.model.adapter import add_adapter
from thinktune.tasks.model.attention import choose_attention
from thinktune.tasks.model.base import load_base
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.lifecycle import Lifecycle
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.sft.examples import Data, read_examples
from thinktune.tasks.train.sft.loss import PlainLoss
from thinktune.tasks.train.sft.objective import SftObjective

STEPS, LAST = 300, 50
CPU = torch.device("cpu")
LARGEST = 448.0


def rounded(x: torch.Tensor, axis: int) -> torch.Tensor:
    """To e4m3 and back, with one scale along the axis."""
    scale = x.abs().amax(axis, keepdim=True).clamp_min(1e-12) / LARGEST
    return (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale


class Product(torch.autograd.Function):
    """x·Wᵀ and dy·W, each with operands of its own rounding."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, fp8: bool
    ) -> torch.Tensor:
        ctx.columns, ctx.fp8 = columns, fp8
        return (rounded(x, -1) if fp8 else x) @ rows.T

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return (rounded(dy, -1) if ctx.fp8 else dy) @ ctx.columns, None, None, None


def replace_products(model: torch.nn.Module, *, fp8: bool) -> None:
    """Unpacks each frozen layer once and multiplies by that."""
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            whole = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
            pair = (rounded(whole, 1), rounded(whole, 0)) if fp8 else (whole, whole)
            layer.forward = _forward(*pair, fp8)  # type: ignore[method-assign]


def _forward(rows: torch.Tensor, columns: torch.Tensor, fp8: bool) -> Any:
    return lambda x: Product.apply(x, rows, columns, fp8)


def losses(task: TrainTask, folder: Path, *, fp8: bool) -> np.ndarray:
    """Of each step."""
    store = open_store(task.store)
    prep = read_manifest(store, stage_prefix(task.run, "prep"))
    assert prep is not None
    context = Context(store, "a", Reporter(store, "b", "train", "a", quiet=True), Stop())
    names = [f.name for f in prep.files if f.name.startswith("train-")]
    fetch(store, stage_prefix(task.run, "prep"), prep, folder / "prep", names=names)
    revision = prep.revisions["model"]
    weights = fetch_model(task.model, revision, context, folder / "model", weights=True)
    attention = choose_attention(CPU, torch.float32, task.model.head_size)
    base = load_base(weights, "nf4", torch.float32, CPU, attention=attention)
    model = add_adapter(base, task.train, task.model)
    replace_products(model, fp8=fp8)
    accelerator = Accelerator(cpu=True)
    metrics = Metrics(folder / "metrics.jsonl", accelerator)
    examples = read_examples(folder / "prep", "train", "completion")
    row_loss = PlainLoss(model, torch.float32)
    objective = SftObjective(task, context, accelerator, Data(examples, []), row_loss)
    checkpoints = Checkpoints(context, Identity("b", {}, "0" * 64), 2)
    lifecycle = Lifecycle(
        task, context, accelerator, model, objective, checkpoints, metrics, dtype=torch.float32
    )
    for step in range(STEPS):
        lifecycle.step(step)
    lifecycle.finish()
    return np.array([float(row["loss"] or 0) for row in metrics.rows()])


def main() -> None:
    """Both curves and how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    catalog = load_catalog()
    changes = [f"train.batch_size={options.batch_size}", f"train.max_steps={STEPS}"]
    recipe = load_recipe("demo", changes, catalog=catalog)
    with tempfile.TemporaryDirectory() as temporary:
        planned = make_run(recipe, catalog, f"file://{temporary}/store", "fp8")
        hardware = catalog.hardware[recipe.hardware]
        run_local(planned, hardware, until="prep", say=print)
        task = planned.tasks["train"]
        assert isinstance(task, TrainTask)
        curves = []
        for name in ("fp32", "fp8"):
            folder = Path(temporary) / name
            folder.mkdir()
            curves.append(losses(task, folder, fp8=name == "fp8"))
    full, small = curves
    apart = np.abs(small - full)
    figures = {
        "steps": STEPS,
        "batch_size": options.batch_size,
        "first_loss": round(float(full[0]), 4),
        "last_loss": round(float(full[-LAST:].mean()), 4),
        "last_loss_fp8": round(float(small[-LAST:].mean()), 4),
        "mean_difference": round(float(apart.mean()), 5),
        "largest_difference": round(float(apart.max()), 5),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
