"""The real gateway in front of a scripted engine: sockets, supervisor and canary are real."""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from tiny_tokenizer import tiny_entry

from thinktune.schema.data import DataSpec
from thinktune.schema.prompt import PromptTemplate
from thinktune.schema.serve import ServeLimits, ServeTask, ServeTimes
from thinktune.tasks.serve.adapters import Adapters
from thinktune.tasks.serve.engine.choose import Chosen, Command, Found
from thinktune.tasks.serve.gateway.keys import Keys
from thinktune.tasks.serve.gateway.retrieval import Index
from thinktune.tasks.serve.inputs import Defaults, Served
from thinktune.tasks.serve.server import Server
from thinktune.text.templates import Renderer

ENGINE = Path(__file__).with_name("scripted_engine.py")
KEY = "a-key-that-no-log-may-hold"
END = 2
MARKER = "Final Answer:"


def template(*, thinks: bool = False) -> PromptTemplate:
    """How prompts of the tiny model are rendered."""
    model = tiny_entry().model_copy(update={"thinks": thinks})
    data = DataSpec(dataset="inventory-sums", final_answer=MARKER)
    return Renderer(model, data).template("tiny")


@dataclass
class Gateway:
    """A running one."""

    folder: Path
    port: int
    server: Server
    log: StringIO
    key: str | None = KEY
    send: Callable[[str], None] = field(repr=False, default=lambda name: None)
    fault: Callable[[], BaseException | None] = field(repr=False, default=lambda: None)
    """What its server has ended with."""

    def stop(self) -> None:
        """As a SIGTERM."""
        self.send("stopped")

    def hurry(self) -> None:
        """As a second one."""
        self.send("hurry")

    def script(self, **says: Any) -> None:
        """What the engine answers from now on."""
        (self.folder / "script.json").write_text(json.dumps(says))

    def asked(self) -> list[dict[str, Any]]:
        """What the engine was asked, without the canary's requests."""
        path = self.folder / "requests.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [each for each in map(json.loads, lines) if len(each["prompt"]) > 1]

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON, or text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        if data is not None:
            given["Content-Type"] = "application/json"
        connection.request(method, path, data, {**given, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def chat(self, question: str = "How many hats?", **more: Any) -> dict[str, Any]:
        """The answer to one question. Fails where there is none."""
        status, found = self.try_chat(question, **more)
        assert status == 200, found
        return dict(found)

    def try_chat(self, question: str = "How many hats?", **more: Any) -> tuple[int, Any]:
        """Status and answer to one question."""
        messages = [{"role": "user", "content": question}]
        body = {"model": "tiny-run", "messages": messages} | more
        return self.request("POST", "/v1/chat/completions", body)

    def events(self, question: str = "How many hats?", **more: Any) -> list[Any]:
        """The events of a stream; `DONE` for the last one."""
        status, text = self.try_chat(question, stream=True, **more)
        assert status == 200, text
        lines = [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]
        return ["DONE" if line == "[DONE]" else json.loads(line) for line in lines]


def wait_until(reached: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Waits for something that is about to happen."""
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, "not reached"
        time.sleep(0.01)


@contextmanager
def gateway(
    folder: Path,
    tokenizer_file: Path,
    *,
    thinks: bool = False,
    key: str | None = KEY,
    apart: bool = False,
    kind: str = "vllm",
    documents: Index | None = None,
    limits: ServeLimits | None = None,
    times: ServeTimes | None = None,
    window: int = 512,
    server_name: str | None = None,
    adapters: Adapters | None = None,
) -> Iterator[Gateway]:
    """A gateway while the block runs. `adapters`: those of a server whose runs change, which
    have begun."""
    found = Found("", vllm=True, script=True, capability=None if apart else (9, 0), bfloat16=True)
    chosen = Chosen(kind, "a test", found)  # type: ignore[arg-type]
    task = ServeTask(
        run="tiny-run",
        store="file:///nowhere",
        port=0,
        server=server_name,
        limits=limits or ServeLimits(),
        times=times or ServeTimes(retry_s=10, grace_s=5),
    )
    served = (
        adapters.first
        if adapters is not None
        else Served(
            run="tiny-run",
            template=template(thinks=thinks),
            stop_ids=(END,),
            weights=tokenizer_file.parent,
            adapter=folder,
            adapter_config={"r": 1},
            base="16bit",
            dtype="float32",
            window=window,
            defaults=Defaults(0.0, 1.0, None),
            judged="",
        )
    )
    (folder / "script.json").write_text(json.dumps({"text": "<think>\nso\n</think>\n\nFour."}))
    log = StringIO()
    ready = threading.Event()
    running: dict[str, Any] = {}

    async def serve() -> None:
        stopped, hurry = asyncio.Event(), asyncio.Event()
        server = Server(
            task,
            served,
            chosen,
            Keys([key] if key else []),
            documents,
            command_for=lambda port: Command(
                (sys.executable, str(ENGINE), str(port), str(folder)), {}
            ),
            adapters=adapters,
        )
        running.update(server=server, stopped=stopped, hurry=hurry, loop=asyncio.get_running_loop())
        serving = asyncio.create_task(server.serve(stopped, hurry))
        while not server.supervisor.ready and not serving.done():
            await asyncio.sleep(0.01)
        ready.set()
        await serving

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            running["fault"] = error
            if adapters is None:
                raise
        finally:
            ready.set()

    with redirect_stdout(log):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert ready.wait(30)
        server = running["server"]

        def send(name: str) -> None:
            running["loop"].call_soon_threadsafe(running[name].set)

        made = Gateway(folder, server.port, server, log, key, send)
        made.fault = lambda: running.get("fault")
        try:
            yield made
        finally:
            if thread.is_alive():
                made.stop()
            thread.join(30)
            assert not thread.is_alive()
