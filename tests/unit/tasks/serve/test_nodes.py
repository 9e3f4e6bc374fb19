"""The place of a node among those that serve one model."""

import socket

import pytest

from thinktune.schema.errors import InternalError, ServiceUnavailable
from thinktune.tasks.serve import nodes
from thinktune.tasks.serve.engine.choose import Command
from thinktune.tasks.serve.nodes import as_first_node, node_arguments, own_address, resolve


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
