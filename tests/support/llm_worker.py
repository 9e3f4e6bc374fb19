"""Runs askings in processes that can be killed, without paying for the libraries' start each time.

One helper process has everything imported and forks for each job, so that a child is at work within
milliseconds and a test can afford to kill a dozen of them.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "sk-secret-of-tests-0123456789"


@dataclass
class Job:
    """One child at work."""

    pid: int
    _helper: "subprocess.Popen[str]"

    def kill(self) -> None:
        """As `kill -9`; that it has ended already is no fault."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it to stop, as Kubernetes does."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        assert self._helper.stdout is not None
        return int(self._helper.stdout.readline())


@dataclass
class Workers:
    """The helper process."""

    _helper: "subprocess.Popen[str]"

    def start(self, spec: dict[str, Any], store: str, prompts: list[str], out: Path) -> Job:
        """Asks all prompts; each outcome is a line in `out`."""
        job = {"spec": spec, "store": store, "prompts": prompts, "out": str(out)}
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(job) + "\n")
        self._helper.stdin.flush()
        return Job(int(self._helper.stdout.readline()), self._helper)


@contextmanager
def workers() -> Iterator[Workers]:
    """The helper runs until the block ends."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TEST_KEY": KEY, "OPENAI_API_KEY": "another", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Workers(process)
    finally:
        process.kill()
        process.wait()


def _tell(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _serve() -> None:
    import anthropic  # noqa: F401 - loaded for the children
    import openai  # noqa: F401

    from thinktune.llm.asking import Asker  # noqa: F401

    _tell("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_work(json.loads(line)))
        _tell(pid)
        _, status = os.waitpid(pid, 0)
        _tell(os.waitstatus_to_exitcode(status))


def _work(job: dict[str, Any]) -> int:
    from thinktune.llm.asking import Asker
    from thinktune.llm.requests import Message, Request
    from thinktune.schema.errors import ThinktuneError
    from thinktune.schema.llm import LlmSpec
    from thinktune.store import open_store

    asked = {"stop": False}
    signal.signal(signal.SIGTERM, lambda *_: asked.update(stop=True))
    spec = LlmSpec.parse(job["spec"], "test")
    requests = [Request(p, (Message("user", p),)) for p in job["prompts"]]
    try:
        with (
            Path(job["out"]).open("a") as out,
            Asker(spec, open_store(job["store"]), "spend", stop=lambda: asked["stop"]) as asker,
        ):
            for outcome in asker.ask(requests):
                out.write(json.dumps([outcome.request.id, outcome.text, outcome.reason]) + "\n")
    except ThinktuneError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    _serve()
