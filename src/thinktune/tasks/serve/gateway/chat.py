"""A chat request from its body to its answer. Called by `http`, which has checked who asks."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from aiohttp import web

from thinktune.schema.serve import BASE_MODEL, ServeLimits
from thinktune.tasks.serve.engine.client import (
    EngineLost,
    EngineRefused,
    EngineUnavailable,
    Generation,
)
from thinktune.tasks.serve.gateway.answering import Answering, Ended, Order
from thinktune.tasks.serve.gateway.chat_api import ChatRequest, read_request
from thinktune.tasks.serve.gateway.errors import ApiError, unavailable
from thinktune.tasks.serve.gateway.responses import DONE, Head, event
from thinktune.tasks.serve.gateway.retrieval import Index
from thinktune.tasks.serve.models import Model, Models, Ticket
from thinktune.text.think_stream import Delta

SEEDS = 2**63
WRITE_S = 60.0
"""Seconds that a client may leave what was sent to it unread."""


class Chat:
    """Answers chat requests."""

    def __init__(
        self,
        models: Models,
        limits: ServeLimits,
        answering: Answering,
        documents: Index | None,
        *,
        forms: bool,
    ) -> None:
        """`documents`: the server's own. `forms`: whether the engine can hold an answer to one."""
        self.models = models
        self.documents = documents
        self._limits = limits
        self._answering = answering
        self._forms = forms
        self._indexing = asyncio.Lock()
        """One request's documents at a time: the largest take seconds and 200 MB."""

    async def reply(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """The answer to a request with that body. Raises ApiError."""
        # Reading and tokenizing a long prompt takes a while.
        with self.models.ticket() as ticket:
            asked = await asyncio.to_thread(read_request, body, self._limits)
            model, engine_name = self._found(asked.model, ticket)
            index = await self._index(asked)
            order, head = await asyncio.to_thread(self._prepared, asked, model, engine_name, index)
            return await self._answer(request, asked, order, head)

    def _found(self, name: str, ticket: Ticket) -> tuple[Model, str]:
        """The model of that name, and its adapter's name in the engine. Raises ApiError."""
        model = self.models.find(name, ticket)
        if model is None or ticket.engine_name is None:
            known = f"{', '.join(self.models.tuned)} and {BASE_MODEL}"
            message = f"there is no such model; there are {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return model, ticket.engine_name

    async def _index(self, asked: ChatRequest) -> list[Index]:
        """The documents that the answer may draw on."""
        found = []
        if asked.documents:
            async with self._indexing:
                found.append(await asyncio.to_thread(Index, asked.documents))
        if asked.use_server_documents and self.documents is not None:
            found.append(self.documents)
        return found

    def _prepared(
        self, asked: ChatRequest, model: Model, engine_name: str, index: list[Index]
    ) -> tuple[Order, Head]:
        """What the engine is asked for a request, and what its answers have in common."""
        limits, served = self._limits, model.served
        prompt = model.prompts.render(asked, index, limits.passages)
        room = served.window - len(prompt.ids)
        defaults = served.defaults
        wanted = asked.max_completion_tokens or asked.max_tokens or defaults.max_tokens or room
        generation = Generation(
            model=engine_name,
            prompt_ids=prompt.ids,
            max_tokens=min(wanted, room, limits.max_tokens or room),
            stop_ids=served.stop_ids,
            temperature=defaults.temperature if asked.temperature is None else asked.temperature,
            top_p=defaults.top_p if asked.top_p is None else asked.top_p,
            seed=asked.seed,
            more=_penalties(asked),
        )
        order = Order(
            generation=generation,
            inside_think=prompt.inside_think,
            thinks=asked.thinks(),
            budget=asked.thinking_budget,
            form=self._form(asked),
            stops=asked.stops(),
        )
        head = Head(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            model=asked.model,
            prompt_tokens=len(prompt.ids),
            passages=prompt.passages,
            marker=served.template.final_answer,
        )
        return order, head

    def _form(self, asked: ChatRequest) -> dict[str, object] | None:
        form = asked.response_format
        if form is None or form.type == "text":
            return None
        if not self._forms:
            message = f"response_format {form.type} needs vLLM, which is not installed here"
            raise ApiError(400, message, param="response_format")
        return form.model_dump(mode="json", by_alias=True, exclude_none=True)

    async def _answer(
        self, request: web.BaseRequest, asked: ChatRequest, order: Order, head: Head
    ) -> web.StreamResponse:
        orders = [_numbered(order, number) for number in range(asked.n or 1)]
        try:
            if asked.stream:
                return await self._stream(request, asked, orders, head)
            ended = await asyncio.gather(*(self._whole(each) for each in orders))
        except EngineRefused as error:
            raise ApiError(400, str(error)) from None
        except (EngineUnavailable, EngineLost):
            raise unavailable("the engine does not answer") from None
        return web.json_response(head.whole(ended))

    async def _whole(self, order: Order) -> Ended:
        async with aclosing(self._answering.answer(order)) as events:
            async for each in events:
                if isinstance(each, Ended):
                    return each
        raise EngineLost

    async def _stream(
        self, request: web.BaseRequest, asked: ChatRequest, orders: list[Order], head: Head
    ) -> web.StreamResponse:
        """Answers as they are written. What goes wrong before the first word is an error like any
        other; after it, an event says so."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        ended: dict[int, Ended] = {}
        begun: set[int] = set()
        try:
            async with aclosing(self._events(orders)) as events:
                async for index, each in events:
                    if not response.prepared:
                        await response.prepare(request)
                    if index not in begun:
                        begun.add(index)
                        await _write(response, head.first(index))
                    if isinstance(each, Ended):
                        ended[index] = each
                        await _write(response, head.last(index, each))
                    else:
                        await _write(response, head.delta(index, each))
        except (EngineLost, EngineUnavailable, EngineRefused):
            if not response.prepared:
                raise
            error = ApiError(503, "the engine broke off in the middle of the answer")
            await _write(response, event(error.body()))
            return response
        if asked.stream_options is not None and asked.stream_options.include_usage:
            await _write(response, head.with_usage([ended[n] for n in sorted(ended)]))
        await _write(response, DONE)
        return response

    async def _events(self, orders: list[Order]) -> AsyncGenerator[tuple[int, Delta | Ended], None]:
        """What all answers say, each with the number of its answer."""
        found: asyncio.Queue[tuple[int, Delta | Ended]] = asyncio.Queue(maxsize=64)

        async def collect(index: int, order: Order) -> None:
            async with aclosing(self._answering.answer(order)) as events:
                async for each in events:
                    await found.put((index, each))

        if len(orders) == 1:
            async with aclosing(self._answering.answer(orders[0])) as events:
                async for each in events:
                    yield 0, each
            return
        tasks = [asyncio.create_task(collect(n, order)) for n, order in enumerate(orders)]
        left = len(tasks)
        try:
            while left:
                index, each = await _first(found, tasks)
                left -= isinstance(each, Ended)
                yield index, each
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _first(
    found: "asyncio.Queue[tuple[int, Delta | Ended]]", tasks: "list[asyncio.Task[None]]"
) -> tuple[int, Delta | Ended]:
    """The next event. Raises what a task raised."""
    getting = asyncio.create_task(found.get())
    await asyncio.wait([getting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    while not getting.done():
        for task in tasks:
            if task.done():
                task.result()
        running = [task for task in tasks if not task.done()]
        await asyncio.wait([getting, *running], return_when=asyncio.FIRST_COMPLETED)
    return getting.result()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises ConnectionError where the client does not read."""
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)
    except TimeoutError:
        raise ConnectionResetError from None


def _penalties(asked: ChatRequest) -> dict[str, float]:
    given = {
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
    }
    return {name: value for name, value in given.items() if value}


def _numbered(order: Order, number: int) -> Order:
    """The same order with a seed of its own, so that several answers differ."""
    generation = order.generation
    if generation.seed is None or number == 0:
        return order
    return replace(order, generation=replace(generation, seed=(generation.seed + number) % SEEDS))
