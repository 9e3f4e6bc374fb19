"""An answer while the engine writes it: reasoning and content apart, budget, form and stop texts.

A think part that is closed for the model, because its budget is used up or because the answer must
have a form, ends the engine's request; a second one goes on behind the closing mark, where a form
then holds. Its prompt is the first one's with the reasoning so far, tokenized as training does.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from thinktune.tasks.serve.engine.arms import Arms
from thinktune.tasks.serve.engine.client import Chunk, EngineClient, Generation
from thinktune.text.final_answer import final_answer
from thinktune.text.think import MARK, MARKS
from thinktune.text.think_stream import Delta, ThinkStream
from thinktune.text.tokens import Encoder

OVER_BUDGET = "\n\nI have thought for long enough and answer now.\n"
"""The last words of a think part that its budget ends."""
AFTER_MARK = "\n\n"
"""What training has between the closing mark and the answer."""

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Order:
    """All that decides an answer."""

    generation: Generation
    """The first request of the engine."""
    inside_think: bool
    """Whether the prompt ends inside a think part."""
    thinks: bool
    """Whether the model may think."""
    budget: int | None = None
    """Most tokens of reasoning."""
    form: dict[str, Any] | None = None
    """The engine's `response_format`, which holds after the reasoning."""
    stops: tuple[str, ...] = ()
    """Texts in the content that end the answer."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer, and what it came to."""

    finish_reason: FinishReason
    reasoning: str
    content: str
    completion_tokens: int
    reasoning_tokens: int


class Answering:
    """Answers orders with one engine."""

    def __init__(self, client: EngineClient, arms: Arms, encoder: Encoder) -> None:
        self._client = client
        self._arms = arms
        self._encoder = encoder

    async def answer(self, order: Order) -> AsyncGenerator[Delta | Ended, None]:
        """The answer as it is written, and at last its end. Raises as `EngineClient.stream`."""
        async with (
            self._arms.hold(order.generation.model),
            aclosing(_Answer(self._client, self._encoder, order).run()) as events,
        ):
            async for event in events:
                yield event


class _Answer:
    """One answer."""

    def __init__(self, client: EngineClient, encoder: Encoder, order: Order) -> None:
        self._client = client
        self._encoder = encoder
        self._order = order
        self._stream = ThinkStream(prompt_opens_think=order.inside_think)
        self._raw = ""
        """All text since the prompt's end."""
        self._said = {"reasoning": "", "content": ""}
        self._tokens = 0
        self._stops = _StopTexts(order.stops)
        self._finish: FinishReason | None = None

    async def run(self) -> AsyncGenerator[Delta | Ended, None]:
        """The whole answer."""
        order = self._order
        free = order.form is None or order.thinks
        if free:
            async with aclosing(self._free(order.generation)) as deltas:
                async for delta in deltas:
                    yield delta
        goes_on = self._behind_think() if free else order.generation
        if self._finish is None and goes_on is not None:
            async with aclosing(self._last(goes_on)) as deltas:
                async for delta in deltas:
                    yield delta
        for delta in [*self._passed(self._stream.close()), *self._rest()]:
            yield delta
        yield self._ended()

    async def _free(self, asked: Generation) -> AsyncGenerator[Delta, None]:
        """What the model writes by itself. Without `_finish` at its end, another request follows:
        the think part was closed for the model, or the answer must have a form from here on."""
        thought, formed = 0, self._order.form is not None
        by_token = self._order.budget is not None
        async with aclosing(self._client.stream(asked, merged=not by_token)) as chunks:
            async for chunk in chunks:
                inside = self._stream.inside
                deltas = self._took(chunk)
                thought += chunk.tokens if inside or self._stream.inside else 0
                if formed and self._is_at_answer(deltas):
                    deltas = [delta for delta in deltas if delta.kind == "reasoning"]
                    formed = False
                for delta in self._passed(deltas):
                    yield delta
                if self._order.form is not None and not formed:
                    return
                over = self._order.budget is not None and thought >= self._order.budget
                ended = self._order.form is not None and chunk.finish_reason == "stop"
                if self._stream.inside and (over or ended):
                    for delta in self._passed(self._closed_for_it()):
                        yield delta
                    return
                if self._is_last(chunk):
                    return

    async def _last(self, asked: Generation) -> AsyncGenerator[Delta, None]:
        """What the model writes behind the think part, in the form that is asked for."""
        formed = self._order.form is not None
        if formed:
            asked = replace(asked, more={**asked.more, "response_format": self._order.form})
        async with aclosing(self._client.stream(asked)) as chunks:
            async for chunk in chunks:
                # A form may hold what looks like a mark.
                if formed:
                    self._tokens += chunk.tokens
                    deltas = [Delta("content", chunk.text)]
                else:
                    deltas = self._took(chunk)
                for delta in self._passed(deltas):
                    yield delta
                if self._is_last(chunk):
                    return

    def _took(self, chunk: Chunk) -> list[Delta]:
        self._tokens += chunk.tokens
        self._raw += chunk.text
        return self._stream.feed(chunk.text)

    def _is_last(self, chunk: Chunk) -> bool:
        """Whether nothing follows; sets why."""
        if self._stops.found:
            self._finish = "stop"
        elif chunk.finish_reason is not None:
            self._finish = "length" if chunk.finish_reason == "length" else "stop"
        return self._finish is not None

    def _is_at_answer(self, deltas: list[Delta]) -> bool:
        """Whether the think part has ended, or there will be none."""
        if self._stream.opened:
            return not self._stream.inside
        return any(delta.kind == "content" for delta in deltas)

    def _closed_for_it(self) -> list[Delta]:
        """Ends the think part in the model's stead."""
        self._raw = _without_half_mark(self._raw) + OVER_BUDGET + "</think>"
        self._tokens += len(self._encoder.think_end_ids(OVER_BUDGET))
        return self._stream.feed(OVER_BUDGET + "</think>")

    def _behind_think(self) -> Generation | None:
        """The request that goes on with the answer; None where no token is left for it."""
        asked = self._order.generation
        left = asked.max_tokens - self._tokens
        if left < 1:
            return None
        ids = list(asked.prompt_ids)
        closing = next(
            (mark for mark in MARK.finditer(self._raw) if mark[0].startswith("</")), None
        )
        if closing is not None:
            thought = self._raw[: closing.start()]
            if not self._order.inside_think:
                opening = MARK.search(thought)
                thought = thought[opening.end() :] if opening else thought
                ids += self._encoder.think_open_ids()
            ids += self._encoder.think_end_ids(thought)
            if self._order.form is not None:
                ids += self._encoder.letter_ids(AFTER_MARK)
        # What the request that was ended wrote behind the mark is written anew.
        self._stream = ThinkStream(prompt_opens_think=False, thinking_is_over=True)
        return replace(asked, prompt_ids=tuple(ids), max_tokens=left)

    def _passed(self, deltas: list[Delta]) -> list[Delta]:
        """What of it the client gets, as far as no stop text can be in it."""
        found = []
        for delta in deltas:
            text = self._stops.feed(delta.text) if delta.kind == "content" else delta.text
            if text:
                found.append(Delta(delta.kind, text))
                self._said[delta.kind] += text
        return found

    def _rest(self) -> list[Delta]:
        text = self._stops.close()
        self._said["content"] += text
        return [Delta("content", text)] if text else []

    def _ended(self) -> Ended:
        reasoning, content = self._said["reasoning"], self._said["content"]
        thought = self._encoder.count(reasoning)
        return Ended(
            # Without a reason, no token was left for what comes behind the think part.
            finish_reason=self._finish or "length",
            reasoning=reasoning,
            content=content,
            completion_tokens=self._tokens,
            reasoning_tokens=min(thought, self._tokens),
        )


class _StopTexts:
    """Watches the content for the texts that end an answer; they are no part of it."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What can be given out."""
        if not self._texts or self.found:
            return "" if self.found else text
        text = self._held + text
        places = [place for each in self._texts if (place := text.find(each)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        kept = max(_overlap(text, each) for each in self._texts)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def close(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the text's end begin that stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0


def _without_half_mark(text: str) -> str:
    """The text without the beginning of a mark at its end."""
    kept = max(_overlap(text, mark) for mark in MARKS)
    return text[: len(text) - kept]


def conclusion(content: str, marker: str | None) -> str | None:
    """What stands on the line of the final answer; None where the run has no such line."""
    return final_answer(content, marker) if marker is not None else None
