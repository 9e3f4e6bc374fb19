"""Engines that die, hang, refuse or drain, behind the real gateway: processes and signals are
real."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from gateway import KEY, Gateway, gateway, wait_until

from thinktune.schema.errors import InternalError
from thinktune.schema.serve import ServeTimes
from thinktune.tasks.serve.engine.choose import Command
from thinktune.tasks.serve.engine.process import Supervisor

TIMES = ServeTimes(canary_s=0.3, unready_s=0.6, hung_s=1.2, retry_s=10, grace_s=5)


class Asking(threading.Thread):
    """A question whose answer takes a while."""

    def __init__(self, running: Gateway, **more: Any) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._more = more
        self.status = 0
        self.found: Any = None
        self.start()

    def run(self) -> None:
        with suppress(OSError, HTTPException):  # the server is gone
            self.status, self.found = self._running.try_chat(**self._more)


def test_a_request_is_asked_again_when_the_engine_dies_before_it_begins(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(text="Four.", wait_s=0.5)
        asking = Asking(running)
        wait_until(lambda: len(running.asked()) == 1)
        os.kill(running.server.supervisor.pid or 0, signal.SIGKILL)
        asking.join(20)
        assert asking.status == 200, asking.found
        assert len(running.asked()) == 2
        assert running.server.supervisor.starts == 2
        assert "the engine ended with code -9" in running.log.getvalue()


def test_an_answer_that_began_ends_with_an_error(tmp_path: Path, tokenizer_file: Path) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(text="Four and five.", die_after=2)
        *_, last = running.events()
        assert last["error"]["message"] == "the engine broke off in the middle of the answer"
        running.script(text="Four.")
        assert running.chat()["choices"][0]["message"]["content"] == "Four."


def test_an_engine_that_hangs_is_unready_and_then_started_again(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        assert running.request("GET", "/readyz")[0] == 200
        os.kill(running.server.supervisor.pid or 0, signal.SIGSTOP)
        wait_until(lambda: running.request("GET", "/readyz")[0] == 503)
        assert running.request("GET", "/healthz")[0] == 200
        asking = Asking(running)
        wait_until(lambda: running.request("GET", "/readyz")[0] == 200)
        asking.join(20)
        assert asking.status == 200, asking.found
        assert running.server.supervisor.starts == 2
        assert "kills the engine: no token for" in running.log.getvalue()


def test_a_client_that_does_not_read_is_no_hanging_engine(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES, window=4_000_000) as running:
        running.script(text="so " * 3_000_000)
        body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
            f"\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        )
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", running.port))
            connection.sendall(head.encode() + data)
            time.sleep(2 * TIMES.hung_s)
            assert running.server.state.running == 1
            assert running.request("GET", "/readyz")[0] == 200
        assert running.server.supervisor.starts == 1
        wait_until(lambda: running.server.state.running == 0)


def test_a_stop_lets_answers_end_and_is_unready_at_once(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(text="Four and five.", wait_s=0.3)
        asking = Asking(running)
        wait_until(lambda: len(running.asked()) == 1)
        running.stop()
        wait_until(lambda: running.request("GET", "/readyz") == (503, "draining\n"))
        asking.join(20)
        assert asking.status == 200
        assert asking.found["choices"][0]["message"]["content"] == "Four and five."


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_loses_no_request_of_clients_that_keep_their_connection(
    tmp_path: Path, tokenizer_file: Path, stream: bool
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(text="Four.", wait_s=0.02)
        body = {"model": "base", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        found: list[int] = []
        faults: list[Exception] = []

        def ask(pause_s: float) -> None:
            connection = HTTPConnection("127.0.0.1", running.port, timeout=20)
            try:
                while True:
                    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                    answer = connection.getresponse()
                    answer.read()
                    found.append(answer.status)
                    if answer.getheader("Connection") == "close":
                        return
                    time.sleep(pause_s)
            except (OSError, HTTPException) as error:
                faults.append(error)

        threads = [threading.Thread(target=ask, args=(pause_s,)) for pause_s in (0, 0, 0.4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(found) > 6)
        running.stop()
        for thread in threads:
            thread.join(20)
        assert faults == []
        assert set(found) == {200}


def test_a_connection_that_asks_nothing_more_does_not_hold_a_stop_up(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with (
        gateway(tmp_path, tokenizer_file, times=TIMES) as running,
        socket.create_connection(("127.0.0.1", running.port)) as idle,
    ):
        idle.settimeout(20)
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in idle.recv(1000)
        began = time.monotonic()
        running.stop()
        assert idle.recv(1000) == b""
        assert time.monotonic() - began < TIMES.grace_s


def test_a_second_stop_does_not_wait(tmp_path: Path, tokenizer_file: Path) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(text="so " * 100, wait_s=0.3)
        asking = Asking(running)
        wait_until(lambda: len(running.asked()) == 1)
        running.stop()
        wait_until(lambda: running.server.state.draining)
        began = time.monotonic()
        running.hurry()
        asking.join(20)
        assert asking.status != 200 and time.monotonic() - began < TIMES.grace_s


def test_what_the_engine_refuses_is_the_clients_fault(tmp_path: Path, tokenizer_file: Path) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES) as running:
        running.script(status=400, message="the schema is not supported")
        status, found = running.try_chat()
        assert (status, found["error"]["message"]) == (400, "the schema is not supported")


def test_an_engine_that_fails_for_long_is_no_5xx_but_503(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    times = TIMES.model_copy(update={"retry_s": 0.6})
    with gateway(tmp_path, tokenizer_file, times=times) as running:
        running.script(status=500, message="secret of the engine")
        status, found = running.try_chat()
        assert (status, found["error"]["message"]) == (503, "the engine does not answer")


def test_base_and_tuned_take_turns_where_the_engine_mixes_them(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    with gateway(tmp_path, tokenizer_file, times=TIMES, apart=True) as running:
        running.script(text="so " * 4, wait_s=0.2)
        tuned = [Asking(running), Asking(running)]
        wait_until(lambda: len(running.asked()) == 2)
        base = Asking(running, model="base")
        later = Asking(running)
        for asking in (*tuned, base, later):
            asking.join(20)
            assert asking.status == 200
        models = [each["model"] for each in running.asked()]
        assert models[:2] == ["tiny-run", "tiny-run"]
        assert sorted(models[2:]) == ["base", "tiny-run"]


def test_forms_need_vllm(tmp_path: Path, tokenizer_file: Path) -> None:
    with gateway(tmp_path, tokenizer_file, kind="transformers", key=None) as running:
        status, found = running.try_chat(response_format={"type": "json_object"})
        assert status == 400 and "needs vLLM" in found["error"]["message"]
        # Without a key, a page of another site must not ask through somebody's browser.
        for headers, expected in (
            ({"Host": "evil.example"}, 421),
            ({"Host": "localhost.evil.example:80"}, 421),
            ({"Host": "[::1"}, 400),
            ({"Origin": "http://["}, 400),
            ({"Origin": "null"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": f"http://127.0.0.1:{running.port}"}, 200),
            ({"Content-Type": "text/plain"}, 415),
        ):
            body = {"model": "base", "messages": [{"role": "user", "content": "x"}]}
            found_status, _ = running.request("POST", "/v1/chat/completions", body, headers)
            assert found_status == expected, headers


def test_an_engine_that_never_comes_up_ends_the_server() -> None:
    supervisor = Supervisor(lambda port: Command(("false",), {}), TIMES)
    with pytest.raises(InternalError, match="it ended with code 1 before it was up"):
        asyncio.run(supervisor.run())
