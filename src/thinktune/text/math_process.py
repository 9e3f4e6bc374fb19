"""Compares expressions with math-verify, in a process of its own. `verifiers` uses it.

The process is there because math-verify keeps its time limits with signal.alarm and because a
hostile expression can only be stopped by killing what computes it. It imports this module, which
must therefore stay light.
"""

import functools
import logging
import multiprocessing
import re
from multiprocessing.connection import Connection

START_S = 120.0
"""Seconds for the math process to import sympy, on a busy machine."""
MATH_S = 4
"""Seconds for math-verify's own limits, of parsing and of comparing."""
KILL_S = 20.0
"""Seconds after which the math process is killed and the answer counts as wrong."""

MATHEMATICS = re.compile(
    r"\\[a-zA-Z]+|[\^=√π∞≤≥±]|\d\s*[+*/]\s*\d|\d[a-z]\b|^[(\[{][^,]+,.*[)\]}]$|^[a-zA-Z]$"
)
"""What sets an expression apart from a plain number or word."""


class MathProcess:
    """math-verify in a process of its own, started at the first question, killed when it hangs."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def check(self, candidate: str, reference: str) -> bool:
        """Whether both are the same expression; False too where that cannot be found out."""
        pipe = self._started()
        try:
            pipe.send((candidate, reference))
            if pipe.poll(KILL_S):
                return bool(pipe.recv())
        except (EOFError, OSError):  # it died: out of memory, or a fault in a C library
            pass
        self.close()
        return False

    def close(self) -> None:
        """Kills the process; the next question starts another."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = None
        self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        # Spawned, not forked: the parent may hold a GPU context and threads. Under `python -m
        # thinktune.tasks.evaluate` the child does not import torch: it skips the __main__ of a
        # package and imports this module alone.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._process = context.Process(target=_serve_math, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not ours.poll(START_S) or ours.recv() != "ready":
            self.close()
            raise RuntimeError(f"the math process did not start within {START_S:g} s")
        return ours


@functools.cache
def math_process() -> MathProcess:
    """The one process of this run."""
    return MathProcess()


def _serve_math(pipe: Connection) -> None:
    from math_verify import parse, verify  # here, so that only this process pays for sympy

    logging.disable(logging.CRITICAL)  # it logs every expression that it cannot read
    pipe.send("ready")
    while True:
        try:
            candidate, reference = pipe.recv()
        except EOFError:
            return
        try:
            gold = parse(_in_math_mode(reference), parsing_timeout=MATH_S)
            target = parse(_in_math_mode(candidate), parsing_timeout=MATH_S)
            pipe.send(bool(verify(gold, target, timeout_seconds=MATH_S)))
        except Exception:  # noqa: BLE001  sympy raises anything for garbage, which is no answer
            pipe.send(False)


def _in_math_mode(text: str) -> str:
    """Wraps a bare expression, without which math-verify reads no LaTeX."""
    bare = not re.search(r"\$|\\boxed|\\\(|\\\[", text) and "\n" not in text
    return f"${text}$" if bare and (MATHEMATICS.search(text) and len(text.split()) < 12) else text
