"""The train stage: prep's artifact and the base model in, a standard PEFT adapter out.

Files of the artifact: `adapter_config.json`, `adapter_model.safetensors`, `metrics.jsonl`, and
`tracking/` where the recipe names a tracker that writes files.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel

from thinktune.spec.errors import InputMissing
from thinktune.spec.keys import stage_prefix
from thinktune.spec.manifest import Manifest, Metric
from thinktune.spec.task import TrainTask
from thinktune.store import commit, fetch, manifest_digest
from thinktune.tasks.base_model import (
    compute_dtype,
    device_name,
    load_base,
    local_device,
    versions,
)
from thinktune.tasks.cache import fetch_model
from thinktune.tasks.entry import Context
from thinktune.tasks.inputs import stage_manifest
from thinktune.tasks.progress import utc_now
from thinktune.tasks.train import fused
from thinktune.tasks.train.adapter import add_adapter, save_adapter, trainable
from thinktune.tasks.train.attention import choose_attention
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.examples import read_examples
from thinktune.tasks.train.loop import Data, Loop
from thinktune.tasks.train.loss import PlainLoss, RowLoss
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.sharded import ShardedBase
from thinktune.tasks.train.sharded_load import load_sharded
from thinktune.tasks.watchdog import Watchdog

TRACKING = "tracking"


def run(task: TrainTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    prep = stage_manifest(context.store, task.run, "prep")
    identity = Identity(task.run, {"prep": manifest_digest(prep)}, task.result_digest())
    with (
        Watchdog(context.reporter, task.execution.stall_s),
        tempfile.TemporaryDirectory(prefix="thinktune-train-") as temporary,
    ):
        folder = Path(temporary)
        accelerator = _accelerator(task, folder)
        data = _data(task, context, prep, folder / "prep")
        context.reporter.say(f"loads {task.model.repo} ({task.train.base})")
        device = local_device()
        dtype = compute_dtype(task.train.dtype, device)
        attention = choose_attention(device, dtype, task.model.head_size)
        weights = fetch_model(
            task.model, prep.revisions["model"], context, folder / "model", weights=True
        )
        base, sharded = load_model(
            task, weights, dtype, device, attention, accelerator.num_processes
        )
        model = add_adapter(base, task.train, task.model)
        size = sum(p.numel() for p in trainable(model).values())
        context.reporter.say(
            f"{device_name(device)}, {dtype}".replace("torch.", "")
            + f", attention {attention.removeprefix('thinktune_')}; {size:,} trainable parameters"
        )
        metrics = Metrics(folder / "metrics.jsonl", accelerator)
        checkpoints = Checkpoints(context, identity, task.train.keep_checkpoints)
        row_loss = choose_path(model, task, dtype, context, sharded)
        Loop(
            task,
            context,
            accelerator,
            model,
            data,
            checkpoints,
            metrics,
            row_loss=row_loss,
            dtype=dtype,
            sharded=sharded,
        ).run()
        for tracker in accelerator.trackers:
            tracker.finish()  # writes what it holds back, before the artifact is put together
        if accelerator.is_main_process:
            _commit(task, context, model, metrics, identity, prep, folder / "output")
        accelerator.wait_for_everyone()
        accelerator.state.destroy_process_group()
    return stage_manifest(context.store, task.run, "train")


def load_model(
    task: TrainTask,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    ranks: int,
) -> tuple[PreTrainedModel, ShardedBase | None]:
    """The base, and where its layers are if they are divided among ranks."""
    base = task.train.base
    if task.execution.zero_stage == 3 and ranks > 1:
        return load_sharded(folder, base, dtype, device, attention=attention)
    return load_base(folder, base, dtype, device, attention=attention), None


def _commit(
    task: TrainTask,
    context: Context,
    model: PeftModel,
    metrics: Metrics,
    identity: Identity,
    prep: Manifest,
    output: Path,
) -> None:
    output.mkdir()
    save_adapter(model, output)
    (output / "metrics.jsonl").write_bytes(metrics.path.read_bytes())
    if (logs := output.parent / TRACKING).is_dir():
        shutil.copytree(logs, output / TRACKING)
    commit(
        context.store,
        stage_prefix(task.run, "train"),
        output,
        kind="train",
        run=task.run,
        attempt=context.attempt,
        inputs=identity.inputs,
        task_sha256=identity.task_sha256,
        template_sha256=prep.template_sha256,
        revisions=prep.revisions,
        versions=versions(),
        metrics=_summary(metrics, local_device()),
        created=utc_now(),
    )


def _accelerator(task: TrainTask, folder: Path) -> Accelerator:
    for tracker in task.train.tracking:
        _check_tracker(tracker)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        log_with=list(task.train.tracking) or None,
        project_dir=folder / TRACKING,
    )
    if task.train.tracking:
        settings = {k: v for k, v in task.train.model_dump().items() if isinstance(v, int | float)}
        accelerator.init_trackers(task.run, config=settings)
    return accelerator


def _check_tracker(name: str) -> None:
    """accelerate leaves out what is not there without a word; the recipe asked for it."""
    off = "--set 'train.tracking=[]'"
    if importlib.util.find_spec(name) is None:
        fault = f"tracking with {name}, which is not installed"
        raise InputMissing("train.tracking", fault, f"install thinktune[track], or {off}")
    known = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE")
    if name == "wandb" and not known:
        fault = "tracking in wandb, and WANDB_API_KEY is not set"
        raise InputMissing("environment", fault, f"set it, or WANDB_MODE=offline, or {off}")


def _data(task: TrainTask, context: Context, prep: Manifest, folder: Path) -> Data:
    names = [f.name for f in prep.files if f.name.startswith(("train-", "validation-"))]
    fetch(context.store, stage_prefix(task.run, "prep"), prep, folder, names=names)
    loss_on = task.train.loss_on
    return Data(
        read_examples(folder, "train", loss_on), read_examples(folder, "validation", loss_on)
    )


def choose_path(
    model: PeftModel,
    task: TrainTask,
    dtype: torch.dtype,
    context: Context,
    sharded: ShardedBase | None = None,
) -> RowLoss:
    """The fused path where it is right, else the plain one; the log says which and why."""
    execution = task.execution
    reason = fused.why_not(model, dtype)
    if reason is None:
        no_fp8 = fused.why_not_fp8(model) if task.train.fp8 else None
        fp8 = task.train.fp8 and no_fp8 is None
        note = ", FP8 products" if fp8 else f" without FP8 ({no_fp8})" if no_fp8 else ""
        context.reporter.say(f"fused path{note}")
        dropout = task.train.dropout
        return fused.fuse(model, execution, dtype, dropout=dropout, fp8=fp8, sharded=sharded)
    context.reporter.say(f"plain path ({reason})")
    if sharded is not None:
        sharded.watch(model.get_base_model().model.layers)
    recompute_layers(model, execution.recompute_layers + execution.recompute_mlps)
    return PlainLoss(model, dtype)


def recompute_layers(model: PeftModel, layers: int) -> None:
    """Recomputes the activations of the first `layers` layers; keeps those of the others."""
    if layers == 0:
        return
    causal = model.get_base_model()
    causal.gradient_checkpointing_enable({"use_reentrant": False})
    for number, layer in enumerate(causal.model.layers):
        layer.gradient_checkpointing = number < layers


def _summary(metrics: Metrics, device: torch.device) -> dict[str, Metric]:
    rows = metrics.rows()
    steps = [row for row in rows if "loss" in row]
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    tokens = sum(int(row["tokens"] or 0) for row in steps)
    seconds = sum(float(row["seconds"] or 0) for row in steps)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "steps": len(steps),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
        "validation_loss": validation[-1] if validation else None,
        "skipped_steps": steps[-1]["skipped"],
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "device": device_name(device),
        "peak_gpu_memory_bytes": peak,
    }
