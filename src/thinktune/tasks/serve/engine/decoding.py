"""Decodes several requests at a time with transformers, a token of each in turn.

Base and tuned are one model in memory, the adapter off and on, and each request has a cache of its
own: what one is answered depends on no other. Called by `transformers_server`.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import DynamicCache

from thinktune.tasks.generate.drawing import Drawing
from thinktune.tasks.model.base import (
    Base,
    Dtype,
    compute_dtype,
    load_base,
    local_device,
    unpack,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One token as text; with the last one, why it is the last."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None


@dataclass(slots=True)
class Decoded:
    """A request while it is decoded."""

    prompt_ids: Sequence[int]
    adapter: bool
    max_tokens: int
    stop_ids: frozenset[int]
    drawing: Drawing | None
    """None decodes greedily."""
    give: Callable[[Piece], None]
    """Called from the decoder's thread with each piece."""
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set by who asked, to end it early."""
    cache: Any = None
    next_ids: Sequence[int] = ()
    tokens: int = 0
    stream: DecodeStream | None = None


def load(weights: Path, adapter: Path, base: Base, dtype: Dtype) -> PeftModel:
    """Base and adapter as the evaluation loads them."""
    device = local_device()
    model = load_base(weights, base, compute_dtype(dtype, device), device, attention="sdpa")
    unpack(model)
    return PeftModel.from_pretrained(model, str(adapter)).eval()


class Decoder:
    """A thread that decodes."""

    def __init__(self, model: PeftModel, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._arrived: queue.Queue[Decoded] = queue.Queue()
        self._active: deque[Decoded] = deque()
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still decodes; a fault of the device ends it."""
        return self._thread.is_alive()

    def add(self, sequence: Decoded) -> None:
        """Begins to decode a request."""
        self._arrived.put(sequence)

    def _run(self) -> None:
        while True:
            self._take()
            # Those of one arm after the other: switching the adapter walks over all layers.
            for adapter in (True, False):
                some = [each for each in self._active if each.adapter == adapter]
                if some:
                    with nullcontext() if adapter else self._model.disable_adapter():
                        done = [each for each in some if not self._step(each)]
                    for each in done:
                        self._active.remove(each)

    def _take(self) -> None:
        """New requests; waits for one where there is nothing else to do."""
        if not self._active:
            self._begin(self._arrived.get())
        while True:
            try:
                self._begin(self._arrived.get_nowait())
            except queue.Empty:
                return

    def _begin(self, sequence: Decoded) -> None:
        sequence.cache = DynamicCache(config=self._model.config)
        sequence.next_ids = sequence.prompt_ids
        sequence.stream = DecodeStream(skip_special_tokens=False)
        self._active.append(sequence)

    def _step(self, each: Decoded) -> bool:
        """Computes the next token. Whether there are more to come."""
        if each.given_up.is_set():
            return False
        with torch.inference_mode():
            ids = torch.tensor([list(each.next_ids)], device=self._model.device)
            out = self._model(
                input_ids=ids, past_key_values=each.cache, use_cache=True, logits_to_keep=1
            )
            logits = out.logits[:, -1]
            drawn = logits.argmax(-1) if each.drawing is None else each.drawing.next(logits)
        token = int(drawn[0])
        each.next_ids = (token,)
        each.tokens += 1
        if token in each.stop_ids:
            each.give(Piece("", (), "stop"))
            return False
        assert each.stream is not None
        text = each.stream.step(self._tokenizer, token) or ""
        last = each.tokens >= each.max_tokens
        each.give(Piece(text, (token,), "length" if last else None))
        return not last


@contextmanager
def decoding(decoder: Decoder, sequence: Decoded) -> Iterator[None]:
    """Decodes while the block runs."""
    decoder.add(sequence)
    try:
        yield
    finally:
        sequence.given_up.set()
