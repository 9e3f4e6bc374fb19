"""Levels of a load test, against a real server."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from scripted_stream import DONE, said, usage

from thinktune.launch.load.drive import Load, drive
from thinktune.schema.load import LoadLevel


class Counting:
    """A server that says how many requests it answers at a time, and holds some of them."""

    def __init__(
        self,
        *,
        hold_from: int | None = None,
        refuse_from: int | None = None,
        together: tuple[int, int] = (0, 0),
    ) -> None:
        """`together`: behind so many requests, none is answered before so many have come."""
        self.hold_from = hold_from
        self.refuse_from = refuse_from
        self.together = together
        self.asked: list[str] = []
        self.running = self.most = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["question"])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            behind, clients = self.together
            while len(self.asked) > behind and self.most < clients:
                await asyncio.sleep(0)
            if self.refuse_from is not None and len(self.asked) > self.refuse_from:
                return web.json_response({}, status=503)
            if self.hold_from is not None and len(self.asked) > self.hold_from:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(3600)
            return web.Response(body=said("a") + usage(1) + DONE)
        finally:
            self.running -= 1


@contextmanager
def serving(server: Counting) -> Iterator[str]:
    """Its address while the block runs; in a thread of its own, as in another process."""
    found: list[str] = []
    up, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def work() -> None:
        app = web.Application()
        app.router.add_post("/", server.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        up.set()
        await stopped.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),), daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.close()


def load(url: str, *concurrency: int, requests: int | None = None) -> Load:
    bodies = [{"question": name} for name in "abc"]
    return Load(url, None, bodies, concurrency, requests, 30.0)


def test_each_level_has_its_clients_and_goes_on_with_the_questions() -> None:
    server, said_levels = Counting(together=(5, 4)), list[LoadLevel]()
    with serving(server) as url:
        levels, stopped = drive(load(url, 1, 4, requests=5), said_levels.append)
    assert not stopped and levels == said_levels
    assert [(each.concurrency, each.answered, each.tokens) for each in levels] == [
        (1, 5, 5),
        (4, 5, 5),
    ]
    assert server.most == 4
    assert server.asked[:5] == list("abcab") and sorted(server.asked[5:]) == sorted("cabca")


def test_how_many_requests_a_level_has() -> None:
    assert [load("", 1).requests_of(level) for level in (1, 4, 8)] == [16, 16, 32]
    assert [load("", 1, requests=5).requests_of(level) for level in (1, 8)] == [5, 8]


def test_a_level_without_an_answer_is_the_last_one() -> None:
    with serving(Counting(refuse_from=4)) as url:
        levels, stopped = drive(load(url, 1, 2, 3, requests=4), lambda level: None)
    assert not stopped
    assert [(each.answered, each.failures) for each in levels] == [(4, {}), (0, {"status 503": 4})]


def test_an_interrupt_gives_the_figures_so_far() -> None:
    server, said_levels = Counting(hold_from=6), list[LoadLevel]()
    with serving(server) as url:
        levels, stopped = drive(load(url, 1, 1, 4, requests=4), said_levels.append)
    assert stopped and levels == said_levels
    assert [(each.concurrency, each.answered, each.whole) for each in levels] == [
        (1, 4, True),
        (1, 2, False),
    ]
