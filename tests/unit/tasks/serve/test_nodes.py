"""The place of a node among those that serve one model."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thinktune.schema.errors import InternalError, ServiceUnavailable
from thinktune.tasks.runtime.nodes import PeerWatch
from thinktune.tasks.serve import nodes
from thinktune.tasks.serve.engine.choose import Command
from thinktune.tasks.serve.engine.process import engine_environment
from thinktune.tasks.serve.nodes import (
    as_first_node,
    computed,
    node_arguments,
    own_address,
    resolve,
)


@pytest.mark.parametrize("variable", ["MASTER_ADDR", "LWS_LEADER_ADDRESS"])
def test_the_first_node_is_told_by_address(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in nodes.LEADER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "localhost")
    found = as_first_node(Command(("vllm", "serve"), {"A": "b"}))
    assert "--node-rank=0" in found.arguments
    (address,) = [each for each in found.arguments if each.startswith("--master-addr=")]
    assert address in ("--master-addr=127.0.0.1", "--master-addr=::1")
    assert "--headless" not in found.arguments
    assert found.environment["A"] == "b"


def test_the_others_have_no_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKTUNE_NODE_RANK", "1")
    assert node_arguments("10.0.0.1")[-1] == "--headless"
    assert "--node-rank=1" in node_arguments("10.0.0.1")


def test_a_name_that_is_not_known_yet_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "RETRY_S", 0.0)
    answers = iter([socket.gaierror(-2, "Name or service not known"), None])
    real = socket.getaddrinfo

    def late(*arguments: object, **more: object) -> object:
        fault = next(answers)
        if fault is not None:
            raise fault
        return real("127.0.0.1", None)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    assert resolve("shop-serve-0.shop-serve-nodes") == "127.0.0.1"


def test_a_name_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceUnavailable, match="the first node has no address"):
        resolve("no-such-host.invalid", limit_s=0.0)
    for name in nodes.LEADER:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InternalError, match="the first node's name is not in the environment"):
        nodes.leader_name()


def test_the_own_address_is_that_towards_the_first_node() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"


@contextmanager
def two_nodes() -> Iterator[tuple[PeerWatch, PeerWatch]]:
    """What ties a first and a second node together, once they are connected."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port - 1)}
    first = PeerWatch(2, 0, address)
    second = PeerWatch(2, 1, address)
    deadline = time.monotonic() + 20
    while not (first._peers and second._peers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield first, second
    finally:
        for each in (first, second):
            each.leave(done=True)


async def compute(second: PeerWatch, grace_s: float, first: PeerWatch | None) -> bool:
    """What comes of a second node that is asked to stop at once, while its engine runs; `first`
    has answered 0.2 s later."""
    stopped = asyncio.Event()
    stopped.set()
    engine = await asyncio.create_subprocess_exec("sleep", "60")
    computing = asyncio.create_task(computed(engine, second, stopped, grace_s))
    try:
        await asyncio.sleep(0.2)
        if first is not None:
            assert not computing.done() and engine.returncode is None
            first.leave(done=True)
        return await computing
    finally:
        engine.kill()
        await engine.wait()


def test_a_node_computes_until_the_first_one_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOOK_S", 0.01)
    with two_nodes() as (first, second):
        assert asyncio.run(compute(second, 60, first))
        assert second.left and not second.lost
    with two_nodes() as (_, second):
        assert asyncio.run(compute(second, 0.1, None))  # the first one takes too long
        assert not second.left


def test_a_node_that_loses_the_first_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOOK_S", 0.01)

    async def lose(first: PeerWatch, second: PeerWatch) -> bool:
        engine = await asyncio.create_subprocess_exec("sleep", "60")
        first.leave(done=False)
        try:
            return await computed(engine, second, asyncio.Event(), 60)
        finally:
            engine.kill()
            await engine.wait()

    with two_nodes() as (first, second):
        assert not asyncio.run(lose(first, second))
        assert second.lost


def test_engines_get_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "THINKTUNE_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    file = tmp_path / "environment.json"
    script = f"import json, os; json.dump(dict(os.environ), open({str(file)!r}, 'w'))"
    shown = Command((sys.executable, "-c", script), {"VLLM_HOST_IP": "10.0.0.2"})

    async def started() -> None:
        await (await nodes._start(shown)).wait()

    asyncio.run(started())
    found = json.loads(file.read_text())
    assert "secret" not in found.values()
    assert found["VLLM_HOST_IP"] == "10.0.0.2" and found["PATH"] and found["VLLM_API_KEY"]
    assert "secret" not in engine_environment(shown, "key").values()
