"""Starts one process per GPU of this node, and ends them all with the first one's failure.

Called by the train stage's entry point. As torchrun's static rendezvous (MASTER_ADDR, RANK and so
on), but for two things: a stop signal reaches every rank and is waited for as long as the pod's
grace period lasts, and the exit code is that of the rank that failed first, not always 1.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from thinktune.schema.exit_codes import ExitCode
from thinktune.tasks.runtime.nodes import PeerWatch

NODES, PROCESSES, NODE_RANK = (
    "THINKTUNE_NODES",
    "THINKTUNE_PROCESSES_PER_NODE",
    "THINKTUNE_NODE_RANK",
)
"""Set by the chart; without them there is one process."""
TERMINATION_S = 30
"""What the others get after the first failure; they wait for a rank that is no more."""
POLL_S = 0.2
ERROR_STARTS = ("error: ", "Traceback (most recent call last)")
"""How the end of a rank's log begins."""


@dataclass(frozen=True)
class Group:
    """The ranks that run on this node, and how many nodes there are."""

    nodes: int
    processes: int
    node_rank: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Group | None":
        """Reads what the chart sets; None where one process does it all, or this one is a rank."""
        if "RANK" in environment:
            return None
        nodes, processes = (int(environment.get(name, "1")) for name in (NODES, PROCESSES))
        if nodes * processes == 1:
            return None
        return cls(nodes, processes, int(environment.get(NODE_RANK, "0")))

    def environment(self, local_rank: int) -> dict[str, str]:
        """The environment variables of one rank's process."""
        return {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            **os.environ,
            "RANK": str(self.node_rank * self.processes + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.nodes * self.processes),
            "LOCAL_WORLD_SIZE": str(self.processes),
        }


def run(group: Group, command: Sequence[str]) -> int:
    """Runs the command once per rank of this node; gives the exit code of the first to fail.

    Temporary files of all ranks lie in one folder, which is removed however they end.
    """
    with tempfile.TemporaryDirectory(prefix="thinktune-ranks-") as temporary:
        return _run(group, command, temporary)


def _run(group: Group, command: Sequence[str], temporary: str) -> int:
    peers = PeerWatch(group.nodes, group.node_rank, group.environment(0))
    processes = [
        subprocess.Popen(
            command,
            env=group.environment(rank) | {"TMPDIR": temporary},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a signal to our group reaches us alone, and we pass it on
        )
        for rank in range(group.processes)
    ]
    first = group.node_rank * group.processes
    relays = [StderrRelay(process, first + number) for number, process in enumerate(processes)]

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        _signal(processes, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    code = _wait(processes, relays, peers)
    peers.leave(done=code in (ExitCode.DONE, ExitCode.PREEMPTED))
    return code


def _wait(
    processes: Sequence[subprocess.Popen[str]], relays: Sequence["StderrRelay"], peers: PeerWatch
) -> int:
    failed, since = 0, 0.0
    while True:
        codes = [process.poll() for process in processes]
        if not failed:
            bad = [(rank, code) for rank, code in enumerate(codes) if code]
            if bad:
                # Of several that ended at once, one that knew why rather than one that lost a peer.
                (rank, failed), since = min(bad, key=_guesses), time.monotonic()
                relays[rank].flush()
                if failed != ExitCode.PREEMPTED:
                    _say(f"rank {rank} of this node ended first, with {_named(failed)}")
                    _signal(processes, signal.SIGTERM)
            elif peers.lost:
                failed, since = int(ExitCode.INTERNAL), time.monotonic()
                _say("another node ended first; its log says why")
                _signal(processes, signal.SIGTERM)
        if all(code is not None for code in codes):
            if not failed:
                for relay in relays:
                    relay.flush()
            return failed if failed >= 0 else 128 - failed
        # A rank that was asked to stop commits first and takes what the pod's grace period gives.
        if failed and failed != ExitCode.PREEMPTED and time.monotonic() - since > TERMINATION_S:
            _signal(processes, signal.SIGKILL)
        time.sleep(POLL_S)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the group's one relay


def _guesses(end: tuple[int, int]) -> bool:
    return end[1] == ExitCode.INTERNAL


def _signal(processes: Sequence[subprocess.Popen[str]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _named(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


class StderrRelay:
    """Passes on what a rank writes to stderr. What it says from its first error on is kept: the
    first rank to fail says why, and what the others then say of a rank that is no more helps
    nobody."""

    def __init__(self, process: subprocess.Popen[str], rank: int) -> None:
        self._process = process
        self._mark = f"[rank {rank}] " if rank else ""
        self._held: list[str] = []
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def flush(self) -> None:
        """Writes what was kept of a rank that has ended."""
        self._reader.join(timeout=1)
        sys.stderr.write("".join(self._held))
        sys.stderr.flush()

    def _pass_on(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if self._held or line.startswith(ERROR_STARTS):
                self._held.append(self._mark + line)
                continue
            sys.stderr.write(self._mark + line)
            sys.stderr.flush()
