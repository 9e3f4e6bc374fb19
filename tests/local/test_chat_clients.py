"""Clients that other people wrote: OpenAI's, curl, LangChain's; and our own in the terminal."""

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from command import COMMAND, environment, thinktune
from gateway import KEY, Gateway, gateway
from openai import OpenAI
from pydantic import BaseModel

HOSTILE = "It is \x1b[31mred\x1b[0m\x1b]0;owned\x07 and **12**.\nFinal Answer: 12"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("gateway"), tokenizer_file, window=2000) as made:
        yield made


@pytest.fixture
def client(running: Gateway) -> OpenAI:
    running.script(text="<think>\n5 + 7 = 12\n</think>\n\nTwelve.\nFinal Answer: 12")
    url = f"http://127.0.0.1:{running.port}/v1"
    return OpenAI(base_url=url, api_key=KEY, max_retries=0)


def test_openais_client(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-run", "base"]
    found = client.chat.completions.create(
        model="tiny-run",
        messages=[{"role": "user", "content": [{"type": "text", "text": "How many?"}]}],
        temperature=0,
        max_completion_tokens=100,
    )
    message = found.choices[0].message
    assert message.content == "Twelve.\nFinal Answer: 12"
    assert message.model_extra == {"reasoning": "5 + 7 = 12"}
    assert found.usage is not None and found.usage.completion_tokens_details is not None
    assert found.usage.completion_tokens_details.reasoning_tokens
    # What came goes back, as it came.
    again = client.chat.completions.create(
        model="base",
        messages=[
            {"role": "user", "content": "How many?"},
            message.model_dump(),  # type: ignore[list-item]
            {"role": "user", "content": "Sure?"},
        ],
    )
    assert again.choices[0].finish_reason == "stop"


def test_openais_client_streams(client: OpenAI) -> None:
    content, reasoning, usage = "", "", None
    for chunk in client.chat.completions.create(
        model="tiny-run",
        messages=[{"role": "user", "content": "How many?"}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"thinking_budget": 1000},
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", "") or ""
    assert (reasoning, content) == ("5 + 7 = 12", "Twelve.\nFinal Answer: 12")
    assert usage is not None and usage.completion_tokens > 0


class Hats(BaseModel):
    final: int


def test_openais_client_parses_an_answer_in_a_form(running: Gateway, client: OpenAI) -> None:
    running.script(texts=["<think>\n5 + 7\n</think>\n\n", '{"final": 12}'])
    found = client.chat.completions.parse(
        model="tiny-run",
        messages=[{"role": "user", "content": "How many?"}],
        response_format=Hats,
    )
    assert found.choices[0].message.parsed == Hats(final=12)
    assert running.asked()[-1]["response_format"]["json_schema"]["schema"]["required"] == ["final"]


def test_openais_client_knows_the_errors(running: Gateway, client: OpenAI) -> None:
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.AuthenticationError, match="a key is missing or wrong"):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="there are tiny-run and base"):
        client.chat.completions.create(model="gpt-4", messages=messages)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="no tools"):
        client.chat.completions.create(
            model="base",
            messages=messages,  # type: ignore[arg-type]
            tools=[{"type": "function", "function": {"name": "f"}}],
        )
    running.script(text="Four and five.", die_after=2)
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.chat.completions.create(model="base", messages=messages, stream=True))  # type: ignore[call-overload]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl(running: Gateway, client: OpenAI) -> None:
    url = f"http://127.0.0.1:{running.port}/v1/chat/completions"
    body = {"model": "base", "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    command = ["curl", "-sSN", "--fail", url, *headers, "-d", json.dumps(body)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.endswith("data: [DONE]\n\n") and '"reasoning": "5' in said
    # From a megabyte on, it asks first whether the server wants to have it.
    long = body | {"documents": [{"name": "a", "text": "hats " * 300_000}]}
    command[-1:] = ["@-", "--expect100-timeout", "60", "--max-time", "30"]
    said = subprocess.run(
        command, input=json.dumps(long), capture_output=True, text=True, check=True
    ).stdout
    assert said.endswith("data: [DONE]\n\n")


def test_langchain(running: Gateway, client: OpenAI) -> None:
    """Its requirements are too many to be installed for one test; it runs where they are."""
    langchain = pytest.importorskip("langchain_openai")
    url = f"http://127.0.0.1:{running.port}/v1"
    chat = langchain.ChatOpenAI(base_url=url, api_key=KEY, model="tiny-run", temperature=0)
    assert chat.invoke("How many?").content == "Twelve.\nFinal Answer: 12"
    assert "".join(str(each.content) for each in chat.stream("How many?")).startswith("Twelve.")
    running.script(texts=["<think>\n5 + 7\n</think>\n\n", '{"final": 12}'])
    formed = chat.with_structured_output(Hats, method="json_schema")
    assert formed.invoke("How many?") == Hats(final=12)


def test_chat_in_a_pipe_says_the_answer_alone(running: Gateway, tmp_path: Path) -> None:
    running.script(text=f"<think>\nso\n</think>\n\n{HOSTILE}")
    url = f"http://127.0.0.1:{running.port}"
    ended = subprocess.run(
        [*COMMAND, "chat", url, "--no-think", "--arm", "base"],
        input="How many?",
        capture_output=True,
        text=True,
        env=environment(more={"THINKTUNE_API_KEY": KEY}),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("and **12**.\nFinal Answer: 12\n")
    assert "\x1b" not in ended.stdout and "\x07" not in ended.stdout
    assert running.asked()[-1]["model"] == "base"


def test_chat_on_a_terminal_folds_the_reasoning_and_goes_on(running: Gateway) -> None:
    running.script(text=f"<think>\nfirst\x1b]0;owned\x07 thoughts\n</think>\n\n{HOSTILE}")
    ours, theirs = pty.openpty()
    url = f"http://127.0.0.1:{running.port}"
    process = subprocess.Popen(
        [*COMMAND, "chat", url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(more={"THINKTUNE_API_KEY": KEY, "TERM": "dumb"}),
        start_new_session=True,
    )
    os.close(theirs)
    said = _until(ours, "> ")
    os.write(ours, b"How many?\n")
    said = _until(ours, "final answer: 12")
    assert "thinking" in said and "thoughts" not in said
    assert "owned\x07" not in said and "\x1b]" not in said and "\x1b[31m" not in said
    os.write(ours, b"Sure?\n")
    _until(ours, "final answer: 12")
    first, second = running.asked()[-2:]
    assert len(second["prompt"]) > len(first["prompt"])
    os.write(ours, b"/base\n")
    _until(ours, "base, 2 answers before")
    os.write(ours, b"/exit\n")
    assert process.wait(20) == 0
    os.close(ours)


def _until(terminal: int, text: str) -> str:
    found = ""
    while text not in found:
        found += os.read(terminal, 4096).decode(errors="replace")
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("not a run", "x"), 64, "neither a run nor an address"),
        (("http://127.0.0.1:9", "x"), 69, "the server does not answer (Connection refused)"),
        (("http://me:secret@host", "x"), 64, "no place for credentials"),
        (("ftp://host", "x"), 64, "it is no address of a server"),
        (("http://127.0.0.1:9", "x", "--document", "/nowhere"), 64, "cannot be read as text"),
        (("no-such-run", "x"), 66, "has committed nothing"),
    ],
)
def test_what_chat_cannot_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ended = thinktune("chat", *arguments, cwd=tmp_path)
    assert (ended.code, says in ended.err) == (code, True), ended.err
    assert "secret" not in ended.err


def test_a_wrong_key_is_said(running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("wrong\n")
    url = f"http://127.0.0.1:{running.port}"
    ended = thinktune("chat", url, "x", "--key-file", str(tmp_path / "key"))
    assert ended.code == 64 and "a key is missing or wrong" in ended.err
