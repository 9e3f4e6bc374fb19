"""Runs the command line as a user does: another process, its exit code and what it printed."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "thinktune"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(jobs: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment less what would change the outcome."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("THINKTUNE_", "AWS_"))}
    own = {"THINKTUNE_JOBS": str(jobs)} if jobs else {}
    return {**kept, **own, **(more or {})}


def thinktune(
    *arguments: str,
    jobs: Path | None = None,
    cwd: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> Ended:
    """`thinktune ARGUMENTS…`, to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(jobs, more),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def free_port() -> str:
    """One that nobody has, nor the one after it (a second launcher's), and that no client is given
    before it is bound: those are of a higher range."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, socket.socket() as next_one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return str(port)
