"""The train stage: prep's artifact and the base model in, a standard PEFT adapter out.

Files of the artifact: `adapter_config.json`, `adapter_model.safetensors`, `metrics.jsonl`, and
`tracking/` where the recipe names a tracker that writes files.
"""

import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from peft import PeftModel

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import cache_prefix, stage_prefix
from thinktune.schema.manifest import Manifest, MetricValue
from thinktune.schema.stages import TrainTask
from thinktune.store import commit, fetch, files_digest, manifest_digest, read_manifest
from thinktune.store.adapters import WEIGHTS_FILE, check_adapter, find_adapter
from thinktune.tasks.model.adapter import add_adapter, load_adapter, save_adapter, trainable
from thinktune.tasks.model.attention import choose_attention
from thinktune.tasks.model.base import compute_dtype, device_name, local_device, versions
from thinktune.tasks.model.load import load_model, weights_of
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.inputs import stage_manifest
from thinktune.tasks.runtime.progress import utc_now
from thinktune.tasks.runtime.watchdog import Watchdog
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.lifecycle import Lifecycle
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.objective import VALIDATION_LOSS
from thinktune.tasks.train.selection import Selection
from thinktune.tasks.train.sft.examples import Data, read_examples
from thinktune.tasks.train.sft.loss import choose_path
from thinktune.tasks.train.sft.objective import Row, SftObjective

TRACKING = "tracking"


def run(task: TrainTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    prep = stage_manifest(context.store, task.run, "prep")
    with (
        Watchdog(context.reporter, task.execution.stall_s),
        tempfile.TemporaryDirectory(prefix="thinktune-train-") as temporary,
    ):
        folder = Path(temporary)
        accelerator = _accelerator(task, folder)
        with weights_of(task, prep.revisions["model"], context, accelerator) as weights:
            lifecycle, model, metrics = _prepare(task, context, accelerator, prep, weights, folder)
            lifecycle.run()
        for tracker in accelerator.trackers:
            tracker.finish()  # writes what it holds back, before the artifact is put together
        summary = _summary(task, metrics, accelerator, lifecycle.selection)
        summary["base_model_sha256"] = _base_digest(task, prep, context)
        if accelerator.is_main_process:
            _commit(task, context, model, metrics, summary, prep, folder / "output")
        accelerator.wait_for_everyone()
        accelerator.state.destroy_process_group()
    return stage_manifest(context.store, task.run, "train")


def _prepare(
    task: TrainTask,
    context: Context,
    accelerator: Accelerator,
    prep: Manifest,
    weights: Path,
    folder: Path,
) -> tuple[Lifecycle[Row], PeftModel, Metrics]:
    """Reads the data, loads the model, and puts the training together."""
    data = _data(task, context, prep, folder / "prep")
    context.reporter.say(f"loads {task.model.repo} ({task.train.base})")
    device, began = local_device(), time.monotonic()
    dtype = compute_dtype(task.train.dtype, device)
    attention = choose_attention(device, dtype, task.model.head_size)
    ranks = accelerator.num_processes
    base, sharded = load_model(task, weights, dtype, device, attention, ranks)
    model = add_adapter(base, task.train, task.model)
    _start_from(task, context, prep, model, folder / "init")
    size = sum(p.numel() for p in trainable(model).values())
    context.reporter.say(
        f"loaded in {time.monotonic() - began:.1f} s: {device_name(device)}, "
        + f"{dtype}".removeprefix("torch.")
        + f", attention {attention.removeprefix('thinktune_')}; {size:,} trainable parameters"
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # the plan counts loading for itself
    metrics = Metrics(folder / "metrics.jsonl", accelerator)
    checkpoints = Checkpoints(context, _identity(task, prep), task.train.keep_checkpoints)
    row_loss = choose_path(model, task, dtype, context, sharded)
    objective = SftObjective(task, context, accelerator, data, row_loss)
    lifecycle = Lifecycle(
        task, context, accelerator, model, objective, checkpoints, metrics, dtype=dtype
    )
    return lifecycle, model, metrics


def _start_from(
    task: TrainTask, context: Context, prep: Manifest, model: PeftModel, folder: Path
) -> None:
    """Where the recipe names a run to start from, its adapter. Raises SpecInvalid where it is of
    another form, InputMissing where it is not the one that this run was made with."""
    wanted = task.init_from
    if wanted is None and task.train.init_from is None:
        return
    if wanted is None:
        fault = "the task does not say which adapter it is"
        raise SpecInvalid("train.init_from", fault, "submit or render the run again")
    found = find_adapter(context.store, wanted.run)
    if found.source != wanted:
        fault = f"run {wanted.run} has another adapter than when this run was made"
        remedy = "run or submit the recipe again, which makes another run of it"
        raise InputMissing(context.store.location(found.prefix), fault, remedy)
    check_adapter(found, task.train, task.model, prep.revisions["model"])
    theirs = found.manifest.metrics.get("base_model_sha256")
    if theirs is not None and theirs != _base_digest(task, prep, context):
        fault = f"the adapter of run {wanted.run} was trained on other files of {task.model.repo}"
        raise SpecInvalid("train.init_from", fault, "name a run of this very base model")
    fetch(context.store, found.prefix, found.manifest, folder, names=[WEIGHTS_FILE])
    load_adapter(model, folder / WEIGHTS_FILE)
    context.reporter.say(f"starts from the adapter of run {wanted.run} ({wanted.sha256[:12]})")


def _identity(task: TrainTask, prep: Manifest) -> Identity:
    return Identity(task.run, {"prep": manifest_digest(prep)}, task.result_digest())


def _commit(
    task: TrainTask,
    context: Context,
    model: PeftModel,
    metrics: Metrics,
    summary: dict[str, MetricValue],
    prep: Manifest,
    output: Path,
) -> None:
    identity = _identity(task, prep)
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
        init_from=task.init_from,
        revisions=prep.revisions,
        versions=versions(),
        metrics=summary,
        created=utc_now(),
    )


def _accelerator(task: TrainTask, folder: Path) -> Accelerator:
    for tracker in task.train.tracking:
        _check_tracker(tracker)
    # Ranks wait while one of them uploads a checkpoint; the watchdog ends a wait that is too long.
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=2 * task.execution.stall_s))
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[timeout],
        log_with=list(task.train.tracking) or None,
        project_dir=folder / TRACKING,
    )
    if task.train.tracking:
        settings = {k: v for k, v in task.train.model_dump().items() if isinstance(v, int | float)}
        accelerator.init_trackers(task.run, config=settings)
    return accelerator


def _check_tracker(name: str) -> None:
    """Refuses a tracker that cannot work: accelerate would leave it out silently."""
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


def _summary(
    task: TrainTask, metrics: Metrics, accelerator: Accelerator, selection: Selection
) -> dict[str, MetricValue]:
    """The figures of the whole training; every rank calls it."""
    rows = metrics.rows()
    steps = [row for row in rows if "loss" in row]
    validation = [row[VALIDATION_LOSS] for row in rows if VALIDATION_LOSS in row]
    last = validation[-1] if validation else None
    taken = selection.best if selection.takes_best else None
    rates = [float(row["tokens_per_s"] or 0) for row in steps]
    forecast = task.forecast
    return {
        "base": task.train.base,
        "dtype": task.train.dtype,
        "steps": len(steps),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
        "validation_loss": last,
        "planned_steps": selection.steps,
        "stopped_early": selection.stopped_early,
        "selected_step": taken.step if taken else len(steps),
        "selected_by": VALIDATION_LOSS if taken else "last step",
        "selected_validation_loss": taken.loss if taken else last,
        "skipped_steps": steps[-1]["skipped"],
        "tokens": sum(int(row["tokens"] or 0) for row in steps),
        # The first step compiles kernels.
        "tokens_per_s": statistics.median(rates[1:] or rates),
        "planned_tokens_per_s": forecast.tokens_per_s if forecast else None,
        "ranks": accelerator.num_processes,
        "device": device_name(accelerator.device),
        **_peaks(accelerator),
        "planned_gpu_memory_bytes": forecast.gpu_memory_bytes if forecast else None,
        "planned_s": task.planned_s,
    }


def _base_digest(task: TrainTask, prep: Manifest, context: Context) -> str | None:
    """What the base model's files come to, so that serving finds that it has the same ones."""
    prefix = cache_prefix("models", task.model.repo, prep.revisions["model"])
    manifest = read_manifest(context.store, prefix)
    return None if manifest is None else files_digest(manifest)


def _peaks(accelerator: Accelerator) -> dict[str, MetricValue]:
    """Peak memory of the rank that took most: of tensors, and of all that the GPU was asked for."""
    device = accelerator.device
    if device.type != "cuda":
        return {"peak_allocated_bytes": None, "peak_gpu_memory_bytes": None}
    free, total = torch.cuda.mem_get_info(device)
    outside = total - free - torch.cuda.memory_reserved(device)  # context, NCCL
    own = [torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)]
    own[1] += outside
    every = accelerator.gather(torch.tensor([own], dtype=torch.int64, device=device))
    allocated, used = every.max(0).values.tolist()
    return {"peak_allocated_bytes": allocated, "peak_gpu_memory_bytes": used}
