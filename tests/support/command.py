"""Runs the command line as a user does: another process, its exit code and what it printed."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
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
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
