"""The executor on this machine: each stage a process of its own with its task file, as a container.

Called by `thinktune run`, and by `serve` and `chat` for a server. A stage whose artifact is
committed is not run again; Ctrl-C asks the running stage to stop, which commits what it can; the
same command goes on from there.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from thinktune.launch.find_finished import finished
from thinktune.launch.runs import Run
from thinktune.schema.catalog import HardwareEntry
from thinktune.schema.closed import Closed
from thinktune.schema.errors import InputMissing, SpecInvalid, StageFailed
from thinktune.schema.exit_codes import EXIT_CODES, ExitCode
from thinktune.schema.manifest import Manifest
from thinktune.schema.serve import READY_LINE, ServeTask
from thinktune.schema.stages import STAGE_INFO, Stage, up_to
from thinktune.schema.task import StageTask
from thinktune.store import open_store

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
STOP_S = 20.0
"""Seconds that a server of `chat` has to end."""

SHOWN_LINES = 40
"""Last lines that are shown of a server that did not start."""
SERVER_PACKAGES = ("aiohttp", "bm25s", "tokenizers")

Say = Callable[[str], None]


class Needs(NamedTuple):
    """What a module of the tasks imports that the command line does not."""

    extra: str
    """The extra that installs it."""
    packages: tuple[str, ...]
    offline: bool = False
    """Whether all that it reads is in the store, so that no library shall ask the hub."""


PREP = Needs("prep", ("pyarrow", "tokenizers"))
MATHEMATICS = Needs("review", ("math_verify",))
PEOPLE = Needs("review", ("numpy", "pyarrow", "statsmodels"))
COMPARISON = Needs("review", ("jinja2", "statsmodels"))
ANSWERING = Needs(
    "evaluate", ("peft", "pyarrow", "statsmodels", "tokenizers", "torch"), offline=True
)
NOTHING_MORE = Needs("launch", ())
HUB_CLIENT = Needs("prep", ("huggingface_hub",))
MERGING = Needs("evaluate", ("bitsandbytes", "huggingface_hub", "peft", "torch", "transformers"))


def run_local(
    run: Run, hardware: HardwareEntry, *, until: Stage, say: Say, quiet_stdout: bool = False
) -> dict[Stage, Manifest]:
    """Runs the stages of a run up to `until` that are not finished, in order; gives all their
    manifests.

    With `quiet_stdout` the stages print to stderr. Raises StageFailed, or any ThinktuneError of the
    store.
    """
    _check_machine(hardware)
    done: dict[Stage, Manifest] = {}
    for stage in up_to(until):
        task = run.tasks[stage]
        store = open_store(task.store)
        manifest = finished(store, task, stage, done)
        if manifest is not None:
            say(f"{stage}: done already")
        else:
            _run_stage(stage, task, quiet_stdout)
            manifest = finished(store, task, stage, done)
        if manifest is None:
            message = f"stage {stage} ended well and committed nothing"
            raise StageFailed(message, ExitCode.INTERNAL)
        done[stage] = manifest
    return done


def ask_module(module: str, request: Closed, needs: Needs = PREP) -> str:
    """What a module of the tasks answers on stdout to a request on stdin, in a process of its own;
    its errors go to stderr as they are. Raises StageFailed with its exit code, InputMissing where
    one of the packages that it `needs` is not installed."""
    check_packages(module, needs.packages, needs.extra)
    environment = dict(os.environ)
    if needs.offline:
        environment["HF_HUB_OFFLINE"] = "1"
    ended = subprocess.run(
        [sys.executable, "-m", module],
        env=environment,
        input=request.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if ended.returncode != 0:
        raise StageFailed("", ended.returncode)
    return ended.stdout


def serve_local(task: ServeTask, say: Say, *, up: Callable[[str], None] | None) -> None:
    """Serves until Ctrl-C or SIGTERM, which lets running answers end; `say` gets each line of the
    server, and `up` its address once it answers. Raises StageFailed."""
    check_packages("thinktune serve", SERVER_PACKAGES, "serve")
    with (
        _server(task, subprocess.PIPE) as process,
        _passing_on_signals(process) as interrupted,
    ):
        assert process.stdout is not None
        for data in process.stdout:
            line = data.decode(errors="replace").rstrip("\n")
            say(line)
            url = _address(line)
            if url is not None and up is not None:
                up(url)
                up = None  # an engine that is started again is said in a line alone
        code = process.wait()
        if code != 0 and not interrupted():
            raise StageFailed("", code if code > 0 else 128 - code)


@contextmanager
def local_server(task: ServeTask, log: Path) -> Iterator[str]:
    """A server while the block runs; gives its address once it answers. What it prints goes to
    `log`. Raises StageFailed where it does not start."""
    check_packages("thinktune chat", SERVER_PACKAGES, "serve")
    with log.open("wb") as file, _server(task, file) as process:
        try:
            while (url := _said_address(log)) is None:
                if process.poll() is not None:
                    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
                    raise StageFailed("\n".join(said[-SHOWN_LINES:]), process.returncode)
                time.sleep(POLL_S)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said_address(log: Path) -> str | None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((url for line in lines if (url := _address(line)) is not None), None)


def _address(line: str) -> str | None:
    """What a server says of where it listens, in the line that it prints when it answers."""
    words = line.split()
    return words[4] if len(words) == 5 and words[1] == READY_LINE else None


@contextmanager
def _server(task: ServeTask, output: IO[bytes] | int) -> Iterator["subprocess.Popen[bytes]"]:
    """The server's process. Its errors go where ours go, or with the rest to a file."""
    with tempfile.TemporaryDirectory(prefix="thinktune-task-") as folder:
        path = Path(folder) / "task.json"
        path.write_text(task.model_dump_json(indent=1), encoding="utf-8")
        yield subprocess.Popen(
            [sys.executable, "-m", "thinktune.tasks.serve", "--task", str(path)],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": folder, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output == subprocess.PIPE else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal reaches us, and we ask the server
            preexec_fn=_die_with_parent,
        )


def check_packages(place: str, packages: tuple[str, ...], extra: str) -> None:
    """Raises InputMissing where one is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        fault = f"the package {missing[0]}, which it needs, is not installed"
        raise InputMissing(place, fault, f"pip install 'thinktune[{extra}]', or make setup")


def _check_machine(hardware: HardwareEntry) -> None:
    if hardware.num_gpus == 0:
        return
    here = len(list(Path("/dev").glob("nvidia[0-9]*")))
    place = f"a local run on {hardware.num_gpus}×{hardware.gpu}"
    if here == 0:
        remedy = "submit it to a cluster, or, for a small model, --set hardware=cpu"
        raise SpecInvalid(place, "this machine has no NVIDIA GPU", remedy)
    if hardware.num_gpus > 1:
        remedy = "submit it to a cluster, or set hardware to a node with one GPU"
        raise SpecInvalid(place, "a local run uses one GPU", remedy)


def _run_stage(stage: Stage, task: StageTask, quiet_stdout: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="thinktune-task-") as folder:
        path = Path(folder) / "task.json"
        path.write_text(task.model_dump_json(indent=1), encoding="utf-8")
        command = [sys.executable, "-m", STAGE_INFO[stage].module, "--task", str(path)]
        process = subprocess.Popen(
            command,
            env=_environment(stage, folder),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if quiet_stdout else None,
            start_new_session=True,  # Ctrl-C at the terminal reaches us, and we ask the stage
            preexec_fn=_die_with_parent,
        )
        with _passing_on_signals(process) as interrupted:
            code = process.wait()
    if code == 0:
        return
    if interrupted() or code == ExitCode.PREEMPTED:
        message = f"{stage} stopped; what it committed is kept, the same command goes on"
        raise StageFailed(message, ExitCode.INTERRUPTED)
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (SIGKILL is often the kernel's answer to too little memory)" if code == -9 else ""
        message = f"{stage} was killed by {name}{hint}; the same command resumes it"
        raise StageFailed(message, 128 - code)
    meaning = EXIT_CODES[ExitCode(code)][0] if code in set(ExitCode) else "not in our table"
    raise StageFailed(f"{stage} failed with exit code {code}: {meaning}", code)


def _environment(stage: Stage, folder: str) -> dict[str, str]:
    # Prep tokenizes on all cores; elsewhere the tokenizer's threads would warn of forks.
    parallel = "true" if stage == "prep" else "false"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": parallel}
    # What a killed stage leaves behind goes with our folder.
    environment["TMPDIR"] = folder
    if STAGE_INFO[stage].network != "hub":
        # Everything has been fetched; a library that asks the hub now would be a leak.
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _die_with_parent() -> None:
    """In the child: SIGTERM when the launcher dies, so that a killed launcher leaves no training
    behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM become one SIGTERM to the stage; a second one kills it."""
    asked = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        asked += 1
        process.send_signal(signal.SIGTERM if asked == 1 else signal.SIGKILL)

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
