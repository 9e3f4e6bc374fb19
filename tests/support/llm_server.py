"""A real HTTP server on 127.0.0.1 that speaks OpenAI's chat completions, files and batches and
Anthropic's messages and message batches, with every fault that such services have had.

It keeps a ledger of what it was asked and what it would bill. It bills whatever it has worked on,
arrived or not: the tests compare that with what the client believes to have spent.

`with llm_server() as server:` runs one in a thread; set `decide` and `plan` at any time.
"""

import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from llm_wire import USAGE, Batch, Plan, Spoiled, missed, reply_of, result_of, shown, tokens_of

Via = Literal["live", "batch"]


@dataclass(frozen=True)
class Refuse:
    """An answer with an error status."""

    status: int
    retry_after: str | None = None
    message: str = "told to"
    code: str = "told"
    billed: bool = False
    """Whether it was worked on all the same."""


@dataclass(frozen=True)
class Asked:
    """One request, as `decide` sees it."""

    number: int
    """Counted from 1, over all requests."""
    prompt: str
    time: int
    """Which time this prompt is asked, from 1."""


@dataclass(frozen=True)
class Bill:
    """One reply that the provider would charge for."""

    prompt: str
    input: int
    output: int
    via: Via
    at: float


@dataclass
class LlmServer:
    """What a running server does, and what it saw."""

    url: str = ""
    """Base URL without a path; `/v1` below it is OpenAI's."""
    decide: Callable[[Asked], Spoiled | Refuse | None] = lambda asked: None
    """What goes wrong with a request; called one at a time."""
    plan: Callable[[int], Plan] = lambda number: Plan()
    """What becomes of a batch, by its number from 1."""
    creating: Callable[[int], Literal["lost", "refused", None]] = lambda number: None
    """What goes wrong when a batch is created: `lost` creates it and cuts the answer off."""
    reply: Callable[[str], str] = lambda prompt: f"The gist of it is {prompt.split()[-1]}."
    latency_s: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    bills: list[Bill] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """When each request came."""
    credentials: set[str] = field(default_factory=set)
    most_at_once: int = 0
    batches: list[Batch] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    active: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def billed(self) -> Counter[str]:
        """How often each prompt was billed."""
        with self.lock:
            return Counter(bill.prompt for bill in self.bills)

    def cost(self, input_price: float, output_price: float, batch_factor: float = 0.5) -> float:
        """All bills, for prices per million tokens."""
        with self.lock:
            return (
                sum(
                    (b.input * input_price + b.output * output_price)
                    * (batch_factor if b.via == "batch" else 1)
                    for b in self.bills
                )
                / 1e6
            )


@contextmanager
def llm_server() -> Iterator[LlmServer]:
    """Runs one on a free port until the block ends."""
    server = LlmServer()

    class Handler(_Handler):
        state = server

    listening = _Listening(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listening.shutdown()
        listening.server_close()


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: LlmServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server, path = self.state, urlsplit(self.path).path
        with server.lock:
            server.active += 1
            server.most_at_once = max(server.most_at_once, server.active)
            credentials = self.headers.get("Authorization") or self.headers.get("x-api-key") or ""
            server.credentials.add(credentials.removeprefix("Bearer "))
        try:
            if path == "/v1/files":
                self._upload(body)
            elif path in ("/v1/batches", "/v1/messages/batches"):
                self._create(json.loads(body), anthropic=path != "/v1/batches")
            elif path in ("/v1/chat/completions", "/v1/messages"):
                self._complete(json.loads(body), anthropic=path == "/v1/messages")
            else:
                self._json(404, {"error": {"message": f"no {path}"}})
        finally:
            with server.lock:
                server.active -= 1

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1").removeprefix("/messages")
        anthropic = parts.path.startswith("/v1/messages")
        with self.state.lock:
            found = {batch.id: batch for batch in self.state.batches}
        if path == "/batches":
            self._list(parse_qs(parts.query), anthropic)
        elif path.startswith("/files/"):
            content = self.state.files.get(path.split("/")[2])
            self._raw(200 if content is not None else 404, content or b"{}")
        elif path.endswith("/results") and path.split("/")[2] in found:
            self._raw(200, "\n".join(found[path.split("/")[2]].lines).encode() + b"\n")
        elif path.startswith("/batches/") and path.split("/")[2] in found:
            batch = found[path.split("/")[2]]
            batch.looked += 1
            self._json(200, shown(batch, anthropic, self.state.url))
        else:
            self._json(404, {"error": {"message": f"no {path}"}})

    # One reply

    def _complete(self, body: dict[str, Any], anthropic: bool) -> None:
        server, prompt = self.state, body["messages"][-1]["content"]
        with server.lock:
            server.asked[prompt] += 1
            server.times.append(time.monotonic())
            asked = Asked(sum(server.asked.values()), prompt, server.asked[prompt])
            fault = server.decide(asked)
        if server.latency_s:
            server.closing.wait(server.latency_s)
        if isinstance(fault, Refuse):
            self._refuse(fault, prompt, body)
            return
        reply = self._reply(body, fault, anthropic)
        self._bill(body, reply, "live")
        if fault == "no usage":
            del reply["usage"]
        if fault == "hang":
            server.closing.wait(120)
            self.close_connection = True
            return
        raw = json.dumps(reply, ensure_ascii=False).encode()
        if fault == "cut":
            self._raw(200, raw[: len(raw) // 2], length=len(raw))
            self.close_connection = True
        elif fault == "half a character":
            self._raw(200, raw.partition(b'"content": "')[0] + b'"content": "caf\xc3')
        elif fault == "not json":
            self._raw(200, b"<html>busy</html>")
        elif fault == "error in 200":
            self._json(200, {"error": {"message": "upstream failed"}})
        else:
            self._raw(200, raw)

    def _reply(
        self, body: dict[str, Any], fault: Spoiled | None, anthropic: bool
    ) -> dict[str, Any]:
        text = self.state.reply(body["messages"][-1]["content"])
        if fault == "tells the key":
            sent = self.headers.get("Authorization") or self.headers.get("x-api-key")
            text = f"You sent {sent}."
        return reply_of(body, text, fault, anthropic)

    def _refuse(self, fault: Refuse, prompt: str, body: dict[str, Any]) -> None:
        if fault.billed:
            self._bill(
                body,
                {"usage": {"prompt_tokens": tokens_of(prompt), "completion_tokens": 1}},
                "live",
            )
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        said = {"error": {"message": fault.message, "code": fault.code, "type": fault.code}}
        self._json(fault.status, said, headers)

    def _bill(
        self, body: dict[str, Any], reply: dict[str, Any], via: Literal["live", "batch"]
    ) -> None:
        usage = reply["usage"]
        used = [usage.get(a, usage.get(b)) for a, b in USAGE]
        prompt = body["messages"][-1]["content"]
        with self.state.lock:
            self.state.bills.append(Bill(prompt, used[0], used[1], via, time.monotonic()))

    # Batches

    def _upload(self, body: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        parts = body.split(b"--" + boundary)
        (content,) = [p.partition(b"\r\n\r\n")[2][:-2] for p in parts if b"filename=" in p]
        name = f"file-{uuid.uuid4().hex[:12]}"
        with self.state.lock:
            self.state.files[name] = content
        shown = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
        }
        self._json(200, {**shown, "filename": "f", "purpose": "batch", "status": "processed"})

    def _create(self, body: dict[str, Any], anthropic: bool) -> None:
        server = self.state
        with server.lock:
            number = len(server.batches) + 1
            trouble = server.creating(number)
            if trouble == "refused":
                self._json(400, {"error": {"message": "no batches for this model"}})
                return
            if anthropic:
                requests = body["requests"]
            else:
                lines = server.files[body["input_file_id"]].decode().splitlines()
                requests = [{**(one := json.loads(line)), "params": one["body"]} for line in lines]
            plan = server.plan(number)
            name = f"batch_{uuid.uuid4().hex[:12]}"
            batch = Batch(name, plan, time.time(), body.get("metadata") or {}, requests)
            server.batches.append(batch)
            self._work_off(batch, anthropic)
        if server.latency_s:  # it exists, and nobody has been told so far
            server.closing.wait(server.latency_s)
        if trouble == "lost":
            self.close_connection = True
            return
        self._json(200, shown(batch, anthropic, server.url))

    def _work_off(self, batch: Batch, anthropic: bool) -> None:
        """Answers and bills at once what the plan says will be."""
        plan, order = batch.plan, list(batch.requests)
        random.Random(0).shuffle(order)  # results come in any order
        answered = round(len(order) * plan.answered)
        for place, one in enumerate(order):
            key, params = one["custom_id"], one["params"]
            if place >= answered:
                (batch.lines if anthropic else batch.errors).append(missed(key, plan, anthropic))
                continue
            asked = Asked(place + 1, params["messages"][-1]["content"], 1)
            fault = self.state.decide(asked)
            spoiled = fault if isinstance(fault, str) else None
            reply = self._reply(params, spoiled, anthropic)
            self._bill(params, reply, "batch")
            if fault == "no usage":
                del reply["usage"]
            if place < plan.missing:
                continue
            line = result_of(key, reply, anthropic)
            batch.lines += [line] * (2 if place < plan.missing + plan.duplicated else 1)
        if batch.lines:
            self.state.files[f"{batch.id}-out"] = "\n".join(batch.lines).encode() + b"\n"
        if batch.errors:
            self.state.files[f"{batch.id}-err"] = "\n".join(batch.errors).encode() + b"\n"

    def _list(self, query: dict[str, list[str]], anthropic: bool) -> None:
        after = query.get("after") or query.get("after_id")
        newest = list(reversed(self.state.batches))
        if after:
            ids = [batch.id for batch in newest]
            newest = newest[ids.index(after[0]) + 1 :]
        page = [shown(batch, anthropic, self.state.url) for batch in newest[:2]]
        more = len(newest) > 2
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        self._json(200, {"object": "list", "data": page, "has_more": more, **ends})

    # HTTP

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(value).encode(), headers=headers)

    def _raw(
        self,
        status: int,
        body: bytes,
        *,
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
