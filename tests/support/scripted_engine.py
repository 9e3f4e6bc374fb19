"""An engine that writes what a test tells it to: vLLM's API as far as the gateway uses it.

    python scripted_engine.py PORT FOLDER

`FOLDER/script.json` says what comes next: `text`, which is written in pieces of a few characters,
each a token; `wait_s` before each piece; `die_after` and `hang_after` pieces; `status` and
`message` of a refusal. Requests are kept, a line each, in `FOLDER/requests.jsonl`.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

PIECE = 3


async def health(request: web.Request) -> web.Response:
    return web.Response()


class Engine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def manage(self, request: web.Request) -> web.Response:
        """An adapter comes or goes; kept, a line each, in `FOLDER/adapters.txt`."""
        name = (await request.json())["lora_name"]
        with (self._folder / "adapters.txt").open("a") as file:
            file.write(f"{request.path.split('_')[0].rpartition('/')[2]} {name}\n")
        return web.Response()

    async def completions(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            return web.json_response({"error": {"message": "key"}}, status=401)
        asked = await request.json()
        with (self._folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(asked) + "\n")
        script: dict[str, Any] = json.loads((self._folder / "script.json").read_text())
        if asked["max_tokens"] == 1 and len(asked["prompt"]) == 1:  # the canary
            script = {"text": "x"}
        if isinstance(script.get("texts"), list):
            texts = script["texts"]
            script["text"] = texts.pop(0) if len(texts) > 1 else texts[0]
            (self._folder / "script.json").write_text(json.dumps(script))
        if "status" in script:
            body = {"error": {"message": script["message"]}}
            return web.json_response(body, status=script["status"])
        return await self._write(request, script, asked["max_tokens"])

    async def _write(
        self, request: web.Request, script: dict[str, Any], most: int
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        text = script["text"]
        pieces = [text[n : n + PIECE] for n in range(0, len(text), PIECE)]
        cut = len(pieces) > most
        for number, piece in enumerate(pieces[:most]):
            if number == script.get("die_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            if number == script.get("hang_after"):
                await asyncio.sleep(3600)
            await asyncio.sleep(script.get("wait_s", 0))
            if not response.prepared:
                await response.prepare(request)
            await self._event(response, piece, [number], None)
        if not response.prepared:
            await response.prepare(request)
        await self._event(response, "", [], "length" if cut else "stop")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _event(
        self, response: web.StreamResponse, text: str, ids: list[int], reason: str | None
    ) -> None:
        choice = {"index": 0, "text": text, "token_ids": ids, "finish_reason": reason}
        await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())


def main() -> None:
    app = web.Application(client_max_size=32 << 20)
    app.router.add_get("/health", health)
    engine = Engine(Path(sys.argv[2]))
    app.router.add_post("/v1/completions", engine.completions)
    app.router.add_post("/v1/load_lora_adapter", engine.manage)
    app.router.add_post("/v1/unload_lora_adapter", engine.manage)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, handle_signals=False)


if __name__ == "__main__":
    main()
