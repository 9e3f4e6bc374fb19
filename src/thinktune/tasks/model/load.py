"""The frozen base of a training: fetched once per node, loaded by however many ranks there are.

Called by `stage`.
"""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.fused import FUSED_KINDS
from thinktune.schema.stages import TrainTask
from thinktune.tasks.model.base import load_base
from thinktune.tasks.model.parallel_load import load_in_parallel
from thinktune.tasks.model.sharded import ShardedBase
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter

POLL_S = 1.0


@contextmanager
def weights_of(
    task: TrainTask, revision: str, context: Context, accelerator: Accelerator
) -> Iterator[Path]:
    """The base model's folder. One rank of each node fetches it, or checks it where it lies; the
    others read the same files."""
    names = [context.attempt]
    if accelerator.num_processes > 1:
        broadcast_object_list(names)
    node = accelerator.process_index - accelerator.local_process_index
    folder = Path(tempfile.gettempdir()) / f"thinktune-model-{names[0]}-{node}"
    done = folder / "done"
    if not accelerator.is_local_main_process:
        while not done.exists():  # a rank that fails to fetch ends them all
            time.sleep(POLL_S)
            context.reporter.heartbeat()
        yield Path(done.read_text(encoding="utf-8"))
        return
    folder.mkdir()
    try:
        with _watched(folder, context.reporter):
            found = fetch_model(task.model, revision, context, folder / "model", weights=True)
        (folder / "found").write_text(str(found), encoding="utf-8")
        (folder / "found").rename(done)
        yield found
    finally:
        shutil.rmtree(folder)


@contextmanager
def _watched(folder: Path, reporter: Reporter) -> Iterator[None]:
    """Files that grow are progress: a large model may take longer than the watchdog's patience."""
    over = threading.Event()

    def look() -> None:
        before = 0
        while not over.wait(POLL_S):
            with contextlib.suppress(FileNotFoundError):  # renamed while we look
                now = sum(path.stat().st_size for path in folder.rglob("*"))
                if now != before:
                    reporter.heartbeat()
                before = now

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def load_model(
    task: TrainTask,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    ranks: int,
) -> tuple[PreTrainedModel, ShardedBase | None]:
    """The base, and its layers' gathering if they are divided among ranks (ZeRO-3)."""
    base, divided = task.train.base, task.execution.zero_stage == 3
    if ranks > 1 and task.model.architecture in FUSED_KINDS:
        return load_in_parallel(folder, base, dtype, device, attention=attention, divided=divided)
    if ranks > 1 and divided:
        fault = f"ZeRO-3 divides models of {', '.join(FUSED_KINDS)}, not {task.model.architecture}"
        raise SpecInvalid("train", fault, "plan with another ZeRO stage, or on larger GPUs")
    return load_base(folder, base, dtype, device, attention=attention), None
