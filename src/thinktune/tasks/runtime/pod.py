"""A pod's first process: runs a stage and keeps its log in the store, beside its artifact.

Entry point of the chart: `python -m thinktune.tasks.runtime.pod train --task FILE`. The stage is a
process of its own, so that its log is kept however it ends; signals are passed on to it, and its
exit code becomes the pod's. While the store is down the log there is incomplete; the work goes on.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from thinktune.schema.errors import ThinktuneError
from thinktune.schema.keys import logs_prefix
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.termination import PodTermination, error_line
from thinktune.store import Store, open_store
from thinktune.tasks.runtime.progress import utc_now

UPLOAD_EVERY_S = 10.0
LAST_UPLOAD_S = 20.0
"""Seconds that a pod waits at its end for the last upload."""
LAST_OUTPUT_S = 10.0
KEPT_BYTES = 4 << 20
"""Most bytes of a log that are kept in the store; the beginning of a longer one is cut off."""


class Log:
    """What the stage printed: passed on at once, kept in the store every few seconds."""

    def __init__(self, store: Store | None, prefix: str, pod: str) -> None:
        self._store = store
        self._prefix = prefix
        self._pod = pod
        self._text = bytearray()
        self._lock = threading.Lock()
        self._said = self._stored = 0
        self._began = utc_now()
        self._over = threading.Event()
        self._shipper = threading.Thread(target=self._ship, daemon=True)
        self._shipper.start()

    def add(self, piece: bytes) -> None:
        """Passes on a piece of output."""
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        with self._lock:
            self._text += piece
            self._said += len(piece)
            if len(self._text) > 2 * KEPT_BYTES:
                del self._text[:-KEPT_BYTES]

    def end(self, code: int) -> None:
        """Keeps the rest, and how the pod ended."""
        self._over.set()
        self._shipper.join(timeout=LAST_UPLOAD_S)
        last = threading.Thread(target=self._end, args=(code,), daemon=True)
        last.start()
        last.join(timeout=LAST_UPLOAD_S)

    def _end(self, code: int) -> None:
        self._keep()
        ending = PodTermination(
            pod=self._pod,
            began=self._began,
            ended=utc_now(),
            code=code,
            error_line=error_line(self._copy().decode(errors="replace")),
        )
        if self._store is not None:
            with contextlib.suppress(ThinktuneError):
                self._store.put(f"{self._prefix}/{self._pod}.json", ending.canonical().encode())

    def _ship(self) -> None:
        while not self._over.wait(UPLOAD_EVERY_S):
            self._keep()

    def _keep(self) -> None:
        said = self._said
        if self._store is None or said == self._stored:
            return
        with contextlib.suppress(ThinktuneError):
            self._store.put(f"{self._prefix}/{self._pod}.log", self._copy()[-KEPT_BYTES:])
            self._stored = said

    def _copy(self) -> bytes:
        with self._lock:
            return bytes(self._text)


def main(arguments: list[str]) -> int:
    """Runs the stage to its end; its exit code, 128 + signal where it was killed."""
    stage = next(known for known in STAGE_INFO if known == arguments[0])
    processes: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        for process in processes:
            process.send_signal(number)

    # First of all: as a container's first process we get no signal that nobody listens for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    process = subprocess.Popen(
        [sys.executable, "-m", STAGE_INFO[stage].module, *arguments[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a signal to our group reaches us alone, and we pass it on
    )
    processes.append(process)
    for early in asked:
        process.send_signal(early)
    log = _log(stage, arguments)
    reader = threading.Thread(target=_read, args=(process, log), daemon=True)
    reader.start()
    code = process.wait()
    # What it started may live on and hold the pipe: the container ends without it.
    reader.join(timeout=LAST_OUTPUT_S)
    code = code if code >= 0 else 128 - code
    log.end(code)
    return code


def _read(process: "subprocess.Popen[bytes]", log: Log) -> None:
    assert process.stdout is not None
    while piece := os.read(process.stdout.fileno(), 1 << 16):
        log.add(piece)


def _log(stage: Stage, arguments: list[str]) -> Log:
    pod = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{time.time_ns()}"
    try:
        path = Path(arguments[arguments.index("--task") + 1])
        task = json.loads(path.read_text(encoding="utf-8"))
        store, run = open_store(task["store"]), task["run"]
    except (OSError, ValueError, LookupError, TypeError, ThinktuneError):
        return Log(None, "", pod)  # the stage says what is wrong with its task
    return Log(store, logs_prefix(run, stage), pod)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
