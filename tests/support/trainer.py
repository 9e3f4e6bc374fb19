"""The tiny model with an adapter and the training around it, in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from tiny import VOCABULARY, tiny_entry
from transformers import AutoConfig

from thinktune.schema.recipe import TrainSpec
from thinktune.schema.stages import TrainTask
from thinktune.schema.task import Execution
from thinktune.store import open_store
from thinktune.tasks.model.adapter import add_adapter, trainable
from thinktune.tasks.model.attention import choose_attention
from thinktune.tasks.model.base import compute_dtype
from thinktune.tasks.model.load import load_model
from thinktune.tasks.model.packed_row import RowLoss
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.lifecycle import Lifecycle
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.objective import Batch, Objective
from thinktune.tasks.train.sft.batches import pack
from thinktune.tasks.train.sft.examples import Data, TrainExample
from thinktune.tasks.train.sft.loss import PlainLoss, choose_path
from thinktune.tasks.train.sft.objective import Row, SftObjective

CPU = torch.device("cpu")


def some_examples(count: int, seed: int = 0) -> list[TrainExample]:
    """Documents of 5 to 60 random tokens, targets from somewhere in the middle on."""
    draw = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        length = int(draw.integers(5, 60))
        ids = draw.integers(3, VOCABULARY, length).astype(np.int32)
        examples.append(TrainExample(f"e{number}", ids, int(draw.integers(1, length))))
    return examples


@dataclass
class Trainer:
    """A training and its parts."""

    lifecycle: Lifecycle[Row]
    objective: SftObjective
    model: PeftModel
    context: Context
    row_loss: RowLoss
    metrics: Metrics
    checkpoints: Checkpoints
    task: TrainTask
    accelerator: Accelerator
    dtype: torch.dtype

    def gradients(self, examples: list[TrainExample]) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss and gradient of one optimizer step."""
        loss = self.lifecycle._gradients(self.objective.batches_of(examples), 0).loss
        return float(loss), {n: p.grad.clone() for n, p in trainable(self.model).items()}

    def lifecycle_of(self, objective: Objective[Batch]) -> Lifecycle[Batch]:
        """A training of the same parts with another objective."""
        return Lifecycle(
            self.task, self.context, self.accelerator, self.model, objective, self.checkpoints,
            self.metrics, dtype=self.dtype,
        )  # fmt: skip


def losses_that_moved(
    row_loss: RowLoss, examples: list[TrainExample], changed: int, device: torch.device
) -> list[bool]:
    """Whether each document's loss is another one, in any bit, once one of them has changed.

    Each in turn is the only one with targets; lengths stay as they are.
    """
    other = np.roll(examples[changed].ids, 1)[::-1].copy()
    moved = []
    for number in range(len(examples)):
        losses = []
        for ids in (examples[changed].ids, other):
            documents = [TrainExample(e.id, e.ids, e.tokens) for e in examples]
            documents[changed] = TrainExample("x", ids, len(ids))
            asked = documents[number]
            documents[number] = TrainExample(asked.id, asked.ids, 1)
            with torch.no_grad():
                losses.append(float(row_loss(pack(documents).to(device))))
        moved.append(losses[0] != losses[1])
    return moved


Make = Callable[..., Trainer]


def maker(
    tiny_folder: Path, tmp_path: Path, device: torch.device = CPU, store: Path | None = None
) -> Make:
    """`make_trainer(execution={…}, base=…, …)`: the same weights each time, B not zero."""

    store_folder = store or tmp_path / "store"

    def make(
        execution: dict[str, Any] | None = None, *, fused: bool = False, **train: Any
    ) -> Trainer:
        spec = TrainSpec(**{"batch_size": 8, "base": "16bit", "dtype": "float32", **train})
        task = TrainTask(
            run="r",
            store=f"file://{store_folder}",
            model_name="tiny",
            model=tiny_entry(),
            train=spec,
            execution=Execution(**(execution or {})),
        )
        store = open_store(task.store)
        context = Context(store, "a", Reporter(store, "r", "train", "a"), Stop())
        dtype = compute_dtype(spec.dtype, device)
        attention = choose_attention(
            device, dtype, AutoConfig.from_pretrained(tiny_folder).head_dim
        )
        accelerator = Accelerator(cpu=device.type == "cpu")
        ranks = accelerator.num_processes
        base, sharded = load_model(task, tiny_folder, dtype, device, attention, ranks)
        model = add_adapter(base, spec, tiny_entry())
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape) * 0.05)
        path = tmp_path / "metrics.jsonl"
        checkpoints = Checkpoints(context, Identity("r", {}, "0" * 64), spec.keep_checkpoints)
        data = Data(some_examples(20), some_examples(4, seed=9))
        metrics = Metrics(path, accelerator)
        row_loss: RowLoss
        if fused or sharded is not None:
            row_loss = choose_path(model, task, dtype, context, sharded)
        else:
            row_loss = PlainLoss(model, dtype)
        objective = SftObjective(task, context, accelerator, data, row_loss)
        lifecycle = Lifecycle(
            task, context, accelerator, model, objective, checkpoints, metrics, dtype=dtype
        )
        return Trainer(
            lifecycle, objective, model, context, row_loss, metrics, checkpoints, task,
            accelerator, dtype,
        )  # fmt: skip

    return make
