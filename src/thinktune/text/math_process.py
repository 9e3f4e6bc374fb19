"""Compares expressions with math-verify, in processes of their own. `verifiers` uses it.

The processes are there because math-verify keeps its time limits with signal.alarm, because a
hostile expression can only be stopped by killing what computes it, and because there may be many.
They import this module, which must therefore stay light.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from thinktune.text.mathematics import MATHEMATICS

Pair = tuple[str, str]
"""An expression and the reference, in LaTeX."""

START_S = 120.0
"""Seconds for a process to import sympy, on a busy machine."""
MATH_S = 2
"""Seconds for math-verify's own limits, of parsing and of comparing."""
KILL_S = 8.0
"""Seconds after which a process is killed and its pair counts as different."""
LOOK_S = 0.2
"""How often the caller is asked whether to stop."""
AT_ONCE = 32
"""Pairs that a process is handed together."""
MOST_PROCESSES = 8
ONE_PROCESS = 64
"""Below this many pairs, a second process would cost more than it saves."""


_FUNCTIONS = re.compile(r"\\[a-zA-Z]+|sin|cos|tan|log|ln|exp|sqrt|pi")


class MathProcess:
    """math-verify in a process of its own."""

    def __init__(self) -> None:
        # Spawned, not forked: the parent may hold a GPU context and threads. Under `python -m
        # thinktune.tasks.evaluate` the child does not import torch: it skips the __main__ of a
        # package and imports this module alone.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve_math, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.ready = False
        self.work: deque[int] = deque()
        """Numbers of the pairs that it has, in their order."""
        self.moved = time.monotonic()

    def hand(self, numbers: Sequence[int], pairs: Sequence[Pair]) -> None:
        """Gives it work. Raises OSError where it is dead."""
        self.work = deque(numbers)
        self.moved = time.monotonic()
        self.pipe.send([pairs[number] for number in numbers])

    def late(self) -> bool:
        """Whether it has been silent for too long."""
        limit = KILL_S if self.ready else START_S
        return time.monotonic() - self.moved > limit

    def alive(self) -> bool:
        """Whether it is still there."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


class MathProcesses:
    """As many as there are cores, started when they are needed, kept until `close`."""

    def __init__(self) -> None:
        self._idle: list[MathProcess] = []

    def check_all(
        self, pairs: Sequence[Pair], stop: Callable[[], None] = lambda: None
    ) -> list[bool]:
        """Whether the two of each pair are the same; False too where that cannot be found out.

        `stop` raises where the work is to end. Raises RuntimeError where no process starts.
        """
        places: dict[Pair, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair, []).append(place)
        verdicts = self._check(list(places), stop)
        found = dict(zip(places, verdicts, strict=True))
        return [found[pair] for pair in pairs]

    def _check(self, pairs: Sequence[Pair], stop: Callable[[], None]) -> list[bool]:
        found: dict[int, bool] = {}
        waiting = deque(range(len(pairs)))
        busy: dict[Connection, MathProcess] = {}
        most = 1 if len(pairs) < ONE_PROCESS else min(MOST_PROCESSES, usable_cores())
        try:
            while len(found) < len(pairs):
                stop()
                while waiting and len(busy) < most:
                    process = self._taken()
                    busy[process.pipe] = process
                    _hand(process, waiting, pairs)
                for pipe in wait(list(busy), timeout=LOOK_S):
                    assert isinstance(pipe, Connection)
                    self._take(busy, pipe, found, waiting, pairs)
                for pipe, process in list(busy.items()):
                    if process.late():
                        self._give_up(busy, pipe, found, waiting)
        finally:
            for process in busy.values():
                process.kill()
        return [found[number] for number in range(len(pairs))]

    def _taken(self) -> MathProcess:
        """An idle process that lives, or a new one."""
        while self._idle:
            process = self._idle.pop()
            if process.alive():
                return process
            process.kill()
        return MathProcess()

    def close(self) -> None:
        """Ends all processes; the next question starts others."""
        for process in self._idle:
            process.kill()
        self._idle = []

    def _take(
        self,
        busy: dict[Connection, MathProcess],
        pipe: Connection,
        found: dict[int, bool],
        waiting: deque[int],
        pairs: Sequence[Pair],
    ) -> None:
        process = busy[pipe]
        try:
            same = pipe.recv()
        except (EOFError, OSError):  # it died: out of memory, or a fault in a C library
            self._give_up(busy, pipe, found, waiting)
            return
        process.moved = time.monotonic()
        if not process.ready:
            process.ready = True
            return
        found[process.work.popleft()] = bool(same)
        if not process.work:
            del busy[pipe]
            if waiting:
                busy[pipe] = process
                _hand(process, waiting, pairs)
            else:
                self._idle.append(process)

    def _give_up(
        self,
        busy: dict[Connection, MathProcess],
        pipe: Connection,
        found: dict[int, bool],
        waiting: deque[int],
    ) -> None:
        """Kills a process. The pair that it was at counts as different, the others wait again."""
        process = busy.pop(pipe)
        process.kill()
        if not process.ready:
            raise RuntimeError(f"a math process did not start within {START_S:g} s")
        if process.work:
            found[process.work.popleft()] = False
        waiting.extendleft(reversed(process.work))


def _hand(process: MathProcess, waiting: deque[int], pairs: Sequence[Pair]) -> None:
    numbers = [waiting.popleft() for _ in range(min(AT_ONCE, len(waiting)))]
    with contextlib.suppress(OSError):  # it is dead, which `_take` sees
        process.hand(numbers, pairs)


def usable_cores() -> int:
    """Cores that this process may use: a container's share of a large machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


@functools.cache
def math_processes() -> MathProcesses:
    """Those of this run."""
    return MathProcesses()


def _serve_math(pipe: Connection) -> None:
    from math_verify import parse, verify  # here, so that only these processes pay for sympy

    @functools.lru_cache(maxsize=4096)
    def read(text: str) -> object:
        return parse(_in_math_mode(text), parsing_timeout=MATH_S)

    logging.disable(logging.CRITICAL)  # it logs every expression that it cannot read
    pipe.send("ready")
    while True:
        try:
            pairs = pipe.recv()
        except (EOFError, OSError):
            return
        for candidate, reference in pairs:
            try:
                gold, target = read(reference), read(candidate)
                pipe.send(bool(verify(gold, target, timeout_seconds=MATH_S)))
            except Exception:  # noqa: BLE001  sympy raises anything for garbage, which is no answer
                pipe.send(False)


def _in_math_mode(text: str) -> str:
    """Wraps a bare expression, without which math-verify reads no LaTeX."""
    bare = not re.search(r"\$|\\boxed|\\\(|\\\[", text) and "\n" not in text
    words = re.search(
        r"[A-Za-z]{2,}", re.sub(r"\\[a-zA-Z]+|sin|cos|tan|log|ln|exp|sqrt|pi", "", text)
    )
    formula = MATHEMATICS.search(text) and len(text.split()) < 12
    return f"${text}$" if bare and (formula or not words) else text
