"""What every stage's `__main__` calls: the task file in, an exit code out.

Errors that people can cause end as one paragraph on stderr; anything else is ours and keeps its
traceback. The exit code is the table's in `thinktune.schema.exit_codes`.
"""

import argparse
import contextlib
import errno
import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from thinktune.recipes.code_version import code_version
from thinktune.schema.errors import (
    DeviceUnusable,
    OutOfGpuMemory,
    ServiceUnavailable,
    SpecInvalid,
    ThinktuneError,
)
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import task_key
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.task import StageTask
from thinktune.store import Store, new_attempt, open_store
from thinktune.tasks.runtime.library_errors import is_out_of_gpu_memory, rust_errno
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
ORPHAN_S = 24 * 3600
"""Age at which an unfinished upload is taken for one whose writer was killed."""


@dataclass(frozen=True)
class Context:
    """What surrounds a stage while it runs."""

    store: Store
    attempt: str
    reporter: Reporter
    stop: Stop


def main(kind: type[StageTask]) -> NoReturn:
    """Parses `--task FILE`, runs the stage of that kind of task, exits with the table's code."""
    stage: Stage = kind.model_fields["stage"].default
    parser = argparse.ArgumentParser(prog=f"python -m {STAGE_INFO[stage].module}")
    parser.add_argument("--task", type=Path, required=True, help="the task file, JSON")
    path: Path = parser.parse_args().task
    sys.exit(guarded(lambda: _run(kind, stage, path)))


def _run(kind: type[StageTask], stage: Stage, path: Path) -> None:
    task = kind.parse(read_json(path), str(path))
    _check_code(task, path)
    quiet_libraries()
    # Packed rows differ in size: without this, the allocator's pieces fill the GPU long before the
    # tensors do. Read when torch starts, so set before it.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    # Heard from here on: as a container's first process we get no signal that nobody listens for.
    with Stop.on_signals() as stop:
        _run_stage(task, stage, stop)


def _check_code(task: StageTask, path: Path) -> None:
    if task.code is not None and task.code != code_version():
        fault = f"it is of code {task.code}, and this image holds {code_version()}"
        remedy = (
            "build and push the images of the launcher's code (make images TAG=…), and name them in"
            " the cluster file (images.tag, or images.digests)"
        )
        raise SpecInvalid(str(path), fault, remedy)


def _run_stage(task: StageTask, stage: Stage, stop: Stop) -> None:
    # Imported once the task is known to be valid: torch takes seconds to load.
    run = importlib.import_module(f"{STAGE_INFO[stage].module}.stage").run
    stop.check(stage)
    store = open_store(task.store)
    with contextlib.suppress(
        ServiceUnavailable
    ):  # housekeeping; a store that is down says so later
        store.abort_uploads(f"runs/{task.run}/{stage}", ORPHAN_S)
        if _rank() == 0:
            store.put(task_key(task.run, stage), task.model_dump_json(indent=1).encode())
    attempt = new_attempt()
    with Reporter(store, task.run, stage, attempt, quiet=_rank() != 0) as reporter:
        run(task, Context(store, attempt, reporter, stop))


def quiet_libraries() -> None:
    """Keeps hints meant for programmers out of a job's log; errors stay."""
    for library in ("bitsandbytes", "transformers", "accelerate", "peft", "torchao"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def read_json(path: Path) -> object:
    """What a task file holds. Raises SpecInvalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecInvalid(str(path), f"no task file ({error.strerror})", "give --task") from None
    except ValueError as error:
        raise SpecInvalid(str(path), f"not JSON ({error})", "render the task again") from None


def guarded(work: Callable[[], None]) -> ExitCode:
    """Does the work; prints what ended it, and gives the exit code that goes with it."""
    try:
        work()
    except ThinktuneError as error:
        return _report(error)
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            return _report(disk_fault(error))
        traceback.print_exc()
        return ExitCode.INTERNAL
    except Exception as error:  # noqa: BLE001 - the last line of defense
        known = _of_a_library(error)
        if known is not None:
            return _report(known)
        traceback.print_exc()
        return ExitCode.INTERNAL
    return ExitCode.DONE


def _of_a_library(error: Exception) -> ThinktuneError | None:
    """The error of ours that an exception of a library stands for, where there is one."""
    if is_out_of_gpu_memory(error):
        first = str(error).splitlines()[0]
        remedy = "lower evaluate.batch_size, data.max_tokens or train.rank, or use a larger GPU"
        return OutOfGpuMemory("GPU", f"out of memory ({first})", remedy)
    code = rust_errno(error)
    if code is not None and code in DISK_ERRNOS:
        return disk_fault(OSError(code, os.strerror(code), tempfile.gettempdir()))
    return None


def disk_fault(error: OSError) -> DeviceUnusable:
    """An OSError of the disk, in our words."""
    place = str(error.filename or "disk")
    remedy = "free space there, or point TMPDIR or the store at a larger disk"
    return DeviceUnusable(place, f"{error.strerror or error}", remedy)


def _report(error: ThinktuneError) -> ExitCode:
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the task's one relay
    return error.exit_code
