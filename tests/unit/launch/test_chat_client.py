"""The client of `thinktune chat`, against the real gateway."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import KEY, Gateway, gateway

from thinktune.launch.chat_client import ChatClient, chat_body
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid

MESSAGES = [{"role": "user", "content": "How many?"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("gateway"), tokenizer_file) as made:
        yield made


@pytest.fixture
def client(running: Gateway) -> ChatClient:
    running.script(text="<think>\nso\n</think>\n\nTwelve.\nFinal Answer: 12")
    return ChatClient(f"http://127.0.0.1:{running.port}/", KEY)


def test_an_answer_in_pieces(client: ChatClient) -> None:
    assert list(client.models()) == ["tiny-run", "base"]
    pieces = list(client.answer(chat_body("tiny-run", MESSAGES, {"temperature": None})))
    assert "".join(piece.reasoning for piece in pieces) == "so"
    assert "".join(piece.content for piece in pieces) == "Twelve.\nFinal Answer: 12"
    assert pieces[-1].finish_reason == "stop" and pieces[-1].facts["final_answer"] == "12"


def test_what_a_server_refuses(running: Gateway, client: ChatClient) -> None:
    with pytest.raises(SpecInvalid, match="there are tiny-run and base"):
        list(client.answer(chat_body("other", MESSAGES, {})))
    wrong = ChatClient(f"http://127.0.0.1:{running.port}", "wrong")
    with pytest.raises(SpecInvalid, match="a key is missing or wrong") as error:
        wrong.models()
    assert "THINKTUNE_API_KEY" in error.value.remedy
    other = ChatClient(f"http://127.0.0.1:{running.port}/nowhere", KEY)
    with pytest.raises(SpecInvalid, match="there is nothing at this path"):
        other.models()


def test_an_engine_that_breaks_off(running: Gateway, client: ChatClient) -> None:
    running.script(text="Four and five.", die_after=2)
    with pytest.raises(ServiceUnavailable, match="broke off in the middle"):
        list(client.answer(chat_body("base", MESSAGES, {})))


def answering(data: bytes) -> str:
    """The address of a server that says that to whoever asks, and is gone."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(data)
        connection.close()
        listening.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "the server does not answer"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "it answers with status 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no server of thinktune"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no server of thinktune"),
    ],
)
def test_other_servers(data: bytes, fault: str) -> None:
    with pytest.raises(ServiceUnavailable, match=fault):
        ChatClient(answering(data), None).models()


def test_a_stream_that_just_ends() -> None:
    data = b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    pieces = ChatClient(answering(data), None).answer({})
    assert next(pieces).content == "x"
    with pytest.raises(ServiceUnavailable, match="the answer broke off"):
        next(pieces)


@pytest.mark.parametrize("url", ["", "host", "ftp://host", "http://", "http://a:b@host"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(SpecInvalid):
        ChatClient(url, None)
