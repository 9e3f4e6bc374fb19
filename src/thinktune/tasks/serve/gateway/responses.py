"""Answers in the form of OpenAI's API: whole, or as server-sent events.

Beside OpenAI's fields, a message has `reasoning`, and an answer `thinktune` with what our own
clients show: the final answer and the passages that stood in the prompt.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from thinktune.tasks.serve.gateway.answering import Ended, conclusion
from thinktune.tasks.serve.gateway.retrieval import Passage
from thinktune.text.think_stream import Delta

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Head:
    """What all parts of one answer have in common."""

    id: str
    model: str
    prompt_tokens: int
    passages: tuple[Passage, ...]
    marker: str | None
    """What the line of the final answer begins with."""

    def whole(self, ended: Sequence[Ended]) -> dict[str, Any]:
        """The answer as one JSON object."""
        return {
            **self._common("chat.completion"),
            "choices": [self._choice(index, each) for index, each in enumerate(ended)],
            "usage": self.usage(ended),
            "thinktune": self.ours(ended),
        }

    def first(self, index: int) -> bytes:
        """The event that begins an answer."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, delta: Delta) -> bytes:
        """The event of some more of it. There is one for each token, so that what all of them have
        in common is written once."""
        text = json.dumps({delta.kind: delta.text}, ensure_ascii=False)
        said = (
            f'{self._common_json}{index},"delta":{text},"logprobs":null,"finish_reason":null}}]}}'
        )
        return f"data: {said}\n\n".encode("utf-8", "replace")

    @cached_property
    def _common_json(self) -> str:
        common = json.dumps(self._common("chat.completion.chunk"), ensure_ascii=False)
        return common[:-1] + ',"choices":[{"index":'

    def last(self, index: int, ended: Ended) -> bytes:
        """The event that ends it."""
        return self._chunk(index, {}, ended.finish_reason, {"thinktune": self.ours([ended])})

    def with_usage(self, ended: Sequence[Ended]) -> bytes:
        """The event that says how many tokens there were."""
        plain = {**self._common("chat.completion.chunk"), "choices": []}
        return event(plain | {"usage": self.usage(ended)})

    def usage(self, ended: Sequence[Ended]) -> dict[str, Any]:
        """Tokens of prompt and answers."""
        completion = sum(each.completion_tokens for each in ended)
        reasoning = sum(each.reasoning_tokens for each in ended)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def ours(self, ended: Sequence[Ended]) -> dict[str, Any]:
        """What our own clients show, of the first answer."""
        return {
            "final_answer": conclusion(ended[0].content, self.marker),
            "reasoning_tokens": ended[0].reasoning_tokens,
            "passages": [asdict(passage) for passage in self.passages],
        }

    def _choice(self, index: int, ended: Ended) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": ended.content,
            "refusal": None,
            "reasoning": ended.reasoning or None,
        }
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": ended.finish_reason,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return event({**self._common("chat.completion.chunk"), "choices": [choice], **(more or {})})

    def _common(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.model}


def event(plain: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(plain, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
