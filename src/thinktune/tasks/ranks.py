"""Starts one process per GPU of this node, and ends them all with the first one's failure.

Called by the train stage's entry point. As torchrun's static rendezvous (MASTER_ADDR, RANK and so
on), but for two things: a stop signal reaches every rank and is waited for as long as the pod's
grace period lasts, and the exit code is that of the rank that failed first, not always 1.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

NODES, PROCESSES, NODE_RANK = (
    "THINKTUNE_NODES",
    "THINKTUNE_PROCESSES_PER_NODE",
    "THINKTUNE_NODE_RANK",
)
"""Set by the chart; without them there is one process."""
ENDING_S = 30
"""What the others get after the first failure; they wait for a rank that is no more."""
LOOK_S = 0.2


@dataclass(frozen=True)
class Group:
    """The ranks of this node."""

    nodes: int
    processes: int
    node_rank: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Group | None":
        """As the chart sets it; None where one process does it all, or this is already a rank."""
        if "RANK" in environment:
            return None
        nodes, processes = (int(environment.get(name, "1")) for name in (NODES, PROCESSES))
        if nodes * processes == 1:
            return None
        return cls(nodes, processes, int(environment.get(NODE_RANK, "0")))

    def environment(self, local_rank: int) -> dict[str, str]:
        """Of one rank."""
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
    """Runs the command once per rank of this node; gives the exit code of the first to fail."""
    voice = _Voice()
    processes = [
        subprocess.Popen(
            command,
            env=group.environment(rank),
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a signal to our group reaches us alone, and we pass it on
        )
        for rank in range(group.processes)
    ]
    readers = [threading.Thread(target=voice.pass_on, args=(p,), daemon=True) for p in processes]
    for reader in readers:
        reader.start()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        _signal(processes, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    code = _wait(processes)
    for reader in readers:
        reader.join(timeout=1)
    return code


def _wait(processes: Sequence[subprocess.Popen[str]]) -> int:
    failed, since = 0, 0.0
    while True:
        codes = [process.poll() for process in processes]
        if not failed:
            bad = [(rank, code) for rank, code in enumerate(codes) if code]
            if bad:
                (rank, failed), since = bad[0], time.monotonic()
                if failed != 128 + signal.SIGTERM:
                    print(  # noqa: T201 - the group's one voice
                        f"rank {rank} of this node ended first, with {_named(failed)}",
                        file=sys.stderr,
                        flush=True,
                    )
                    _signal(processes, signal.SIGTERM)
        if all(code is not None for code in codes):
            return failed if failed >= 0 else 128 - failed
        # A rank that was asked to stop commits first and takes what the pod's grace period gives.
        if failed and failed != 128 + signal.SIGTERM and time.monotonic() - since > ENDING_S:
            _signal(processes, signal.SIGKILL)
        time.sleep(LOOK_S)


def _signal(processes: Sequence[subprocess.Popen[str]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _named(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


class _Voice:
    """Passes on what ranks write to stderr; what all of them say is said once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def pass_on(self, process: subprocess.Popen[str]) -> None:
        """Until the rank closes its stderr."""
        assert process.stderr is not None
        for line in process.stderr:
            with self._lock:
                if line.startswith("error: "):
                    if line in self._said:
                        continue
                    self._said.add(line)
                sys.stderr.write(line)
                sys.stderr.flush()
