"""Our own engine: `POST /v1/completions` over transformers, for machines without vLLM.

    python -m thinktune.tasks.serve.engine.transformers_server SETTINGS

SETTINGS is JSON (`Settings`). It understands as much of vLLM's API as the gateway uses. The server
that comes with transformers takes neither prompts of token ids nor an adapter beside its base.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from pydantic import ValidationError
from tokenizers import Tokenizer

from thinktune.schema.closed import Closed
from thinktune.schema.recipe import BasePrecision
from thinktune.schema.serve import BASE_MODEL
from thinktune.tasks.generate.drawing import Drawing
from thinktune.tasks.model.base import Dtype
from thinktune.tasks.runtime.entry import quiet_libraries
from thinktune.tasks.serve.engine.decoding import Decoded, Decoder, Piece, decoding, load

KEY_VARIABLE = "THINKTUNE_ENGINE_KEY"
MOST_BODY = 16 << 20


class Settings(Closed):
    """What is served, and where."""

    weights: str
    adapters: dict[str, str]
    """Folders of adapters, by name."""
    base: BasePrecision
    dtype: Dtype
    window: int
    port: int
    requests: int


class Completion(Closed):
    """A request, as the gateway makes it."""

    model: str
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop_token_ids: tuple[int, ...]
    skip_special_tokens: Literal[False]
    spaces_between_special_tokens: Literal[False]
    return_token_ids: Literal[True]
    stream: Literal[True]


class Server:
    """Answers requests by a decoder in another thread."""

    def __init__(self, settings: Settings, decoder: Decoder, key: str) -> None:
        self._settings = settings
        self._decoder = decoder
        self._expected = f"Bearer {key}".encode()

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=MOST_BODY)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(status=200 if self._decoder.alive else 503)

    def _knows(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode()
        return compare_digest(given, self._expected)

    async def _load(self, request: web.Request) -> web.Response:
        asked = await request.json() if self._knows(request) else {}
        name, folder = asked.get("lora_name"), asked.get("lora_path")
        if not name or not folder or name == BASE_MODEL:
            return _error(400, "name an adapter and its folder")
        return await self._changed(lambda: self._decoder.load_adapter(name, Path(folder)))

    async def _unload(self, request: web.Request) -> web.Response:
        asked = await request.json() if self._knows(request) else {}
        name = str(asked.get("lora_name"))
        return await self._changed(lambda: self._decoder.unload_adapter(name))

    async def _changed(self, change: Callable[[], None]) -> web.Response:
        try:
            await asyncio.to_thread(change)
        except LookupError as error:
            return _error(404, str(error))
        except Exception as error:  # noqa: BLE001 - whatever an adapter's files may cause
            return _error(400, f"the adapter cannot be loaded ({error})")
        return web.Response(text="done")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        if not self._knows(request):
            return _error(401, "wrong key")
        try:
            asked = Completion.model_validate_json(await request.read())
        except ValidationError as error:
            fields = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
            return _error(400, f"this engine does not take: {fields}")
        if asked.model not in (BASE_MODEL, *self._decoder.adapters):
            return _error(404, "no such model")
        if len(asked.prompt) + asked.max_tokens > self._settings.window or not asked.prompt:
            return _error(400, "prompt and answer do not fit the window")
        return await self._stream(request, asked)

    async def _stream(self, request: web.Request, asked: Completion) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece] = asyncio.Queue()

        def give(piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(6))
        greedy = asked.temperature == 0
        sequence = Decoded(
            prompt_ids=asked.prompt,
            adapter=None if asked.model == BASE_MODEL else asked.model,
            max_tokens=asked.max_tokens,
            stop_ids=frozenset(asked.stop_token_ids),
            drawing=None if greedy else Drawing([seed], asked.temperature, asked.top_p),
            give=give,
        )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with decoding(self._decoder, sequence):
            while True:
                piece = await self._next(pieces)
                await response.write(_event(piece))
                if piece.finish_reason is not None:
                    break
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _next(self, pieces: "asyncio.Queue[Piece]") -> Piece:
        while True:
            try:
                async with asyncio.timeout(1.0):
                    return await pieces.get()
            except TimeoutError:
                if not self._decoder.alive:
                    raise ConnectionError("the decoder is gone") from None


def _event(piece: Piece) -> bytes:
    choice = {
        "index": 0,
        "text": piece.text,
        "token_ids": piece.token_ids,
        "finish_reason": piece.finish_reason,
    }
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


async def _serve(settings: Settings, decoder: Decoder) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    app = Server(settings, decoder, os.environ[KEY_VARIABLE]).app()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.port).start()
    while decoder.alive and not stopped.is_set():
        try:
            async with asyncio.timeout(1.0):
                await stopped.wait()
        except TimeoutError:
            continue
    await runner.cleanup()


def main(arguments: list[str]) -> int:
    """Loads the model and serves it until SIGTERM."""
    quiet_libraries()
    plain: Any = json.loads(arguments[0])
    settings = Settings.parse(plain, "settings")
    folders = {name: Path(folder) for name, folder in settings.adapters.items()}
    model = load(Path(settings.weights), folders, settings.base, settings.dtype)
    tokenizer = Tokenizer.from_file(str(Path(settings.weights) / "tokenizer.json"))
    decoder = Decoder(model, tokenizer, tuple(folders))
    asyncio.run(_serve(settings, decoder))
    return 0 if decoder.alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
