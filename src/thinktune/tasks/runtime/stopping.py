"""SIGTERM and SIGINT as a question that a stage asks when it can answer it.

Kubernetes sends SIGTERM and waits for the grace period; the local executor passes Ctrl-C on as
SIGTERM. A stage stops at its next boundary, commits what is done, and exits with PREEMPTED.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from thinktune.schema.errors import Preempted


class Stop:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    @classmethod
    @contextmanager
    def on_signals(cls) -> Iterator["Stop"]:
        """Listens for SIGTERM and SIGINT until the block ends."""
        stop = cls()

        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            stop.requested = True

        before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self, place: str) -> None:
        """Raises Preempted when asked to stop; for stages that start over cheaply."""
        if self.requested:
            fault = "stopped on request, what was committed stays"
            raise Preempted(place, fault, "run the same command again to go on")
