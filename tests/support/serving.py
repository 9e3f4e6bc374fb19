"""`thinktune serve` as a user starts it: a process, its address, its log."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import COMMAND, environment


@dataclass
class Serving:
    """A server that is running."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, limit_s: float, *, times: int = 1) -> None:
        """Waits until it has printed that."""
        deadline = time.monotonic() + limit_s
        while self.text().count(text) < times:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON, or text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def chat(self, question: str, **more: Any) -> dict[str, Any]:
        """The first choice of an answer."""
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0} | more
        status, found = self.request("POST", "/v1/chat/completions", body)
        assert status == 200, (found, self.text()[-3000:])
        return dict(found["choices"][0])

    def children(self) -> list[int]:
        """Processes that its own process started: the engine, where that is the server itself."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in found.split()]

    def engines(self) -> list[int]:
        """Processes of its engine: the leader of each group that it started."""
        own = self.process.pid
        found = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        parents = dict(tuple(map(int, line.split())) for line in found.splitlines())
        servers = [pid for pid, parent in parents.items() if parent == own]
        return [pid for pid, parent in parents.items() if parent in servers]


@contextmanager
def serving(folder: Path, run: str, *arguments: str, up_s: float, **more: str) -> Iterator[Serving]:
    """A server while the block runs, on a port of its own."""
    command = [*COMMAND, "serve", run, "--local", "--port", "0", *arguments]
    with started(folder, command, up_s=up_s, **more) as made:
        yield made


@contextmanager
def started(folder: Path, command: list[str], *, up_s: float, **more: str) -> Iterator[Serving]:
    """A server that such a command starts, while the block runs."""
    log = folder / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(more=more),
            cwd=folder,
        )
    made = Serving(process, log)
    try:
        made.wait_for(" serves ", up_s)
        found = re.search(r"serves \S+ at http://127\.0\.0\.1:(\d+)", made.text())
        assert found is not None
        made.port = int(found[1])
        yield made
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
