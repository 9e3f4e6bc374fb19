"""Progress with an ETA: on a terminal by rich, in a pod's log a plain line every few seconds, and
for `status` in the store as `<stage>/progress.json`.
"""

import contextlib
import os
import sys
import time
from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.keys import progress_key
from thinktune.schema.manifest import MetricValue, Progress
from thinktune.schema.stages import Stage
from thinktune.store import Store
from thinktune.tasks.runtime.exporter import Exporter

LINE_EVERY_S = 5.0
STORE_EVERY_S = 5.0
RATE_WINDOW = 20
"""Last advances that the ETA is computed from: long enough to be calm, short enough to be true."""


class _Steadfast(Console):
    """Goes quiet when nobody reads any more (`thinktune run … | head`): the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Reporter:
    """One per task process. `phase` starts a count, `advance` moves it, `say` prints a line."""

    def __init__(
        self, store: Store, run: str, stage: Stage, attempt: str, *, quiet: bool = False
    ) -> None:
        self._store = store
        self._key = progress_key(run, stage)
        self._stage = stage
        self._attempt = attempt
        self._quiet = quiet
        self._console = _Steadfast(highlight=False, soft_wrap=True)
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._phase = "start"
        self._unit = ""
        self._done = 0
        self._of = 0
        self._figures: dict[str, MetricValue] = {}
        self._marks: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._first = True
        self._printed = self._stored = 0.0
        self._heartbeat = time.monotonic()
        self._exporter = None if quiet else Exporter.of(os.environ, run, stage, self.idle_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_bar()
        if self._of:
            self._put(time.monotonic())

    def heartbeat(self) -> None:
        """Says that work goes on, between two advances."""
        self._heartbeat = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since anything was told."""
        return time.monotonic() - self._heartbeat

    def say(self, text: str) -> None:
        """One line for people."""
        self.heartbeat()
        if not self._quiet:
            self._console.print(f"{self._stage}: {text}", markup=False)

    def phase(self, name: str, of: int, unit: str, *, done: int = 0) -> None:
        """Begins to count `of` things, 0 if nobody knows how many; `done` of them were done before
        this process began."""
        self.heartbeat()
        self._close_bar()
        self._phase = name
        self._of = of
        self._unit = unit
        self._done = done
        if self._exporter is not None:
            self._exporter.count(done, of)
        self._figures = {}
        self._marks.clear()
        self._marks.append((time.monotonic(), done))
        self._first = True
        self._printed = time.monotonic()
        if self._console.is_terminal and not self._quiet:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            title = self._stage if name == self._stage else f"{self._stage}: {name}"
            self._bar = self._bars.add_task(title, total=of, note="")
            self._bars.start()

    def advance(self, by: int = 1, **figures: MetricValue) -> None:
        """Counts `by` more and shows the newest figures."""
        self.heartbeat()
        now = time.monotonic()
        if len(self._marks) == 1 and self._first:
            # The first of a phase often loads something; the rate is that of those after it.
            self._marks.clear()
            self._first = False
        self._done += by
        self._figures.update(figures)
        self._marks.append((now, self._done))
        if self._exporter is not None:
            self._exporter.count(self._done, self._of, figures)
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, note=self._note())
        last = self._done - by < self._of <= self._done
        if self._bars is None and (last or now - self._printed >= LINE_EVERY_S):
            self._printed = now
            self.say(self._line())
        if last:
            self._close_bar()
        if last or now - self._stored >= STORE_EVERY_S:
            self._put(now)

    def end_early(self) -> None:
        """Ends the phase here, although more was to be done."""
        self.heartbeat()
        self._of = self._done
        self._figures["stopped early"] = True
        if self._exporter is not None:
            self._exporter.count(self._done, self._of)
        self._close_bar()
        self._put(time.monotonic())

    def eta_s(self) -> float | None:
        """Seconds left of this phase at the recent rate."""
        if len(self._marks) < 2:
            return None
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        if n1 <= n0 or t1 <= t0 or self._of <= n1:
            return None
        return (self._of - n1) * (t1 - t0) / (n1 - n0)

    def _line(self) -> str:
        named = "" if self._phase == self._stage else f"{self._phase} "
        return named + self._note()

    def _note(self) -> str:
        # How many there are is not always known, or was an estimate that proved too low.
        known = self._of > 0 and self._done <= self._of
        parts = [f"{self._done}{f'/{self._of}' if known else ''} {self._unit}"]
        parts += [f"{name} {_short(value)}" for name, value in self._figures.items()]
        eta = self.eta_s()
        if eta is not None and self._done < self._of:
            parts.append(f"ETA {clock(eta)}")
        return " · ".join(parts)

    def _put(self, now: float) -> None:
        self._stored = now
        if self._quiet:
            return
        progress = Progress(
            stage=self._stage,
            phase=self._phase,
            done=self._done,
            of=self._of,
            unit=self._unit,
            eta_s=self.eta_s(),
            figures=self._figures,
            attempt=self._attempt,
            heartbeat=utc_now(),
        )
        # Live state is a courtesy: a store that is down for a while must not stop the work here;
        # the next commit will notice if it stays down.
        with contextlib.suppress(ServiceUnavailable):
            self._store.put(self._key, progress.model_dump_json().encode())

    def _close_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._bar = None
            self.say(self._line())
        sys.stdout.flush()


def utc_now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def clock(seconds: float) -> str:
    """`75` → `1:15`, `4000` → `1:06:40`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _short(value: MetricValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
