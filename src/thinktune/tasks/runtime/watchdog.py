"""Ends a process that makes no progress: a stuck kernel, data loader, or rank that waits for ever.

Called by the train stage. Progress is whatever the reporter is told. A stuck process shows the
stacks of all its threads and exits with 70, which is retried; nothing later than the last
checkpoint is lost.
"""

import faulthandler
import os
import sys
import threading
from types import TracebackType
from typing import Self

from thinktune.schema.exit_codes import ExitCode
from thinktune.tasks.runtime.progress import Reporter, clock

LOOKS = 10
"""Times that the watchdog looks within its limit."""


class Watchdog:
    """Watches while the block runs."""

    def __init__(self, reporter: Reporter, limit_s: float) -> None:
        self._reporter = reporter
        self._limit_s = limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._reporter.heartbeat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / LOOKS):
            if self._reporter.idle_s() > self._limit_s:
                self._end()

    def _end(self) -> None:
        sys.stdout.flush()
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        print(  # noqa: T201 - the process's last line
            f"error: train: no progress for {clock(self._limit_s)}; the stacks above show where"
            " each thread waits. Run the same command again: it goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(ExitCode.INTERNAL)  # a stuck thread would keep sys.exit waiting
