"""What clients may ask: an exact list of paths and methods, and what each request must bring.

A path is compared as it was sent, byte for byte, so that nothing that only looks like one of them
is let through. Called by `server`.
"""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from thinktune.schema.serve import BASE_MODEL, ServeLimits
from thinktune.tasks.serve.engine.client import EngineClient
from thinktune.tasks.serve.engine.process import Supervisor
from thinktune.tasks.serve.gateway.chat import Chat
from thinktune.tasks.serve.gateway.errors import ApiError, unavailable
from thinktune.tasks.serve.gateway.keys import LOOPBACK, Keys
from thinktune.tasks.serve.gateway.static import HEADERS, StaticFile
from thinktune.tasks.serve.inputs import Served
from thinktune.tasks.serve.log import say

Route = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class State:
    """What requests are answered with, and how far the server is."""

    limits: ServeLimits
    keys: Keys
    chat: Chat
    client: EngineClient
    supervisor: Supervisor
    files: dict[str, StaticFile]
    draining: bool = False
    running: int = 0
    """Chat requests that are being answered."""
    rejected: int = 0
    """Requests that were told to come again."""


class Gateway:
    """Answers requests."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routes: dict[str, dict[str, Route]] = {
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._chat},
        }
        for path in state.files:
            self._routes[path] = {"GET": self._file}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, however it is wrong."""
        began = time.monotonic()
        path = request.raw_path.partition("?")[0]
        known = self._routes.get(path)
        try:
            response = await self._routed(request, known)
        except ApiError as error:
            self._state.rejected += error.status == 503
            response = web.json_response(error.body(), status=error.status, headers=error.headers)
            # What was not read of the body is no next request.
            response.force_close()
        except ConnectionError:  # the client is gone
            raise
        except Exception:  # noqa: BLE001 - the last line of defense
            say(f"a bug in thinktune:\n{traceback.format_exc()}")
            ours = ApiError(500, "this is a bug in thinktune; its log has a traceback")
            response = web.json_response(ours.body(), status=500)
            response.force_close()
        if known is None or path.startswith("/v1"):
            shown = path if known is not None else "(no such path)"
            method = request.method if request.method in ("GET", "POST") else "(other)"
            ms = 1000 * (time.monotonic() - began)
            say(f"{method} {shown} {response.status} {ms:.0f} ms")
        return response

    async def _routed(
        self, request: web.BaseRequest, known: dict[str, Route] | None
    ) -> web.StreamResponse:
        self._check_host(request)
        if known is None:
            raise ApiError(404, "there is nothing at this path", code="not_found")
        route = known.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(known)
            raise ApiError(405, f"only {allowed} is possible here", headers={"Allow": allowed})
        return await route(request)

    def _check_host(self, request: web.BaseRequest) -> None:
        """Refuses what another site made a browser send to a server that asks for no key."""
        if self._state.keys.any:
            return
        origin = request.headers.get("Origin")
        host = request.headers.get("Host", "")
        try:
            named = urlsplit(f"//{host}").hostname
            from_here = origin is None or urlsplit(origin).netloc == host
        except ValueError:
            raise ApiError(400, "the header Host or Origin is no address") from None
        if named not in LOOPBACK:
            raise ApiError(421, "this server answers to localhost alone")
        if not from_here:
            raise ApiError(403, "this server answers to its own page alone")

    def _check_key(self, request: web.BaseRequest) -> None:
        if not self._state.keys.allow(request.headers.get("Authorization")):
            headers = {"WWW-Authenticate": "Bearer"}
            message = "a key is missing or wrong; send it as: Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers=headers)

    async def _healthz(self, request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        del request
        if self._state.draining:
            return web.Response(status=503, text="draining\n")
        if not self._state.supervisor.ready:
            return web.Response(status=503, text="the engine does not answer\n")
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        self._check_key(request)
        supervisor = self._state.supervisor
        own = {
            "thinktune_gateway_requests_running": self._state.running,
            "thinktune_gateway_engine_ready": int(supervisor.ready),
            "thinktune_gateway_engine_starts": supervisor.starts,
            "thinktune_gateway_idle_seconds": round(self._state.client.idle_s, 1),
        }
        lines = [f"# TYPE {name} gauge\n{name} {value}\n" for name, value in own.items()]
        counted = "thinktune_gateway_rejected_total"
        lines.append(f"# TYPE {counted} counter\n{counted} {self._state.rejected}\n")
        return web.Response(text="".join(lines) + await self._state.client.metrics())

    async def _models(self, request: web.BaseRequest) -> web.Response:
        self._check_key(request)
        names = self._state.chat.models
        facts = {
            "object": "model",
            "created": 0,
            "owned_by": "thinktune",
            "max_model_len": names.first.served.window,
        }
        documents = self._state.chat.documents is not None

        def own(served: Served) -> dict[str, object]:
            template = served.template
            return {
                "base_model": template.model.repo,
                "final_answer": template.final_answer,
                "documents": documents,
            }

        models = [
            {
                "id": name,
                **facts,
                "thinktune": {"arm": "tuned", **own(model.served)}
                # Behind a server's own name, which run that is now.
                | ({"run": model.served.run} if name != model.served.run else {}),
            }
            for name, model in names.tuned.items()
        ]
        models.append(
            {"id": BASE_MODEL, **facts, "thinktune": {"arm": "base", **own(names.first.served)}}
        )
        return web.json_response({"object": "list", "data": models})

    async def _file(self, request: web.BaseRequest) -> web.Response:
        file = self._state.files[request.raw_path.partition("?")[0]]
        headers = {**HEADERS, "Content-Type": file.content_type, "Cache-Control": "no-cache"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return web.Response(body=file.packed, headers=headers)
        return web.Response(body=file.content, headers=headers)

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        self._check_key(request)
        body = await self._body(request)
        state = self._state
        if state.running >= state.limits.requests:
            raise unavailable("the server has as many requests as it takes")
        if not state.supervisor.up and not state.supervisor.was_up:
            raise unavailable("the model is being loaded", after_s=15)
        state.running += 1
        try:
            return await state.chat.reply(request, body)
        finally:
            state.running -= 1

    async def _body(self, request: web.BaseRequest) -> bytes:
        limits = self._state.limits
        if request.content_type != "application/json":
            raise ApiError(415, "send the header Content-Type: application/json")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError(415, "a packed body is not supported")
        if (request.content_length or 0) > limits.body_bytes:
            raise ApiError(413, f"the body has more than {limits.body_bytes} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # curl waits for it
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > limits.body_bytes:
                        raise ApiError(413, f"the body has more than {limits.body_bytes} bytes")
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {limits.body_s:g} s") from None
        except web.RequestPayloadError:
            raise ApiError(400, "the body is not what its headers say") from None
        return bytes(body)
