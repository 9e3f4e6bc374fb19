"""Decodes several requests at a time with transformers, a token of each in turn.

Base and tuned are one model in memory, with one of its adapters on or all of them off, and each
request has a cache of its own: what one is answered depends on no other. Called by
`transformers_server`.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
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

CHANGE_S = 300.0
"""Seconds that a change of the model may take, behind the requests before it."""


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
    adapter: str | None
    """Name of the adapter; None asks the base model."""
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


@dataclass(frozen=True, slots=True)
class _Change:
    """Something that is done to the model between two tokens."""

    work: Callable[[], None]
    done: Future[None]


def load(weights: Path, adapters: Mapping[str, Path], base: Base, dtype: Dtype) -> PeftModel:
    """Base and adapters, by name and at least one, as the evaluation loads them."""
    device = local_device()
    model = load_base(weights, base, compute_dtype(dtype, device), device, attention="sdpa")
    unpack(model)
    (name, folder), *others = adapters.items()
    found = PeftModel.from_pretrained(model, str(folder), adapter_name=_peft_name(name))
    for name, folder in others:
        found.load_adapter(str(folder), adapter_name=_peft_name(name))
    return found.eval()


def _peft_name(name: str) -> str:
    """The name as a module's, in which a dot would begin another module."""
    return name.replace(".", "·")


class Decoder:
    """A thread that decodes."""

    def __init__(self, model: PeftModel, tokenizer: Tokenizer, adapters: Sequence[str]) -> None:
        """`adapters`: names of those that the model has."""
        self.adapters = tuple(adapters)
        """Names of the adapters there are now."""
        self._model = model
        self._tokenizer = tokenizer
        self._arrived: queue.Queue[Decoded | _Change] = queue.Queue()
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

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads one more adapter, between two tokens. Raises what its files cause."""
        if name not in self.adapters:
            self._change(lambda: self._load(name, folder))
            self.adapters += (name,)

    def unload_adapter(self, name: str) -> None:
        """Frees the memory of an adapter. Raises LookupError where there is none of that name."""
        if name not in self.adapters:
            raise LookupError(f"there is no adapter {name}")
        self.adapters = tuple(each for each in self.adapters if each != name)
        self._change(lambda: self._unload(name))

    def _change(self, work: Callable[[], None]) -> None:
        """Does something to the model in the decoder's thread, the only one that may."""
        done: Future[None] = Future()
        self._arrived.put(_Change(work, done))
        done.result(CHANGE_S)

    def _load(self, name: str, folder: Path) -> None:
        try:
            self._model.load_adapter(str(folder), adapter_name=_peft_name(name))
        except Exception:
            if _peft_name(name) in self._model.peft_config:
                self._model.delete_adapter(_peft_name(name))
            raise
        self._model.eval()

    def _unload(self, name: str) -> None:
        # Whoever asked it has gone, or it would not be unloaded.
        self._active = deque(each for each in self._active if each.adapter != name)
        self._model.delete_adapter(_peft_name(name))

    def _run(self) -> None:
        while True:
            self._take()
            # Those of one arm after the other: switching the adapter walks over all layers.
            for adapter in dict.fromkeys(each.adapter for each in self._active):
                some = [each for each in self._active if each.adapter == adapter]
                with self._switched(adapter):
                    done = [each for each in some if not self._step(each)]
                for each in done:
                    self._active.remove(each)

    @contextmanager
    def _switched(self, adapter: str | None) -> Iterator[None]:
        if adapter is None:
            with self._model.disable_adapter():
                yield
            return
        if self._model.active_adapter != _peft_name(adapter):
            self._model.set_adapter(_peft_name(adapter), inference_mode=True)
        yield

    def _take(self) -> None:
        """New requests; waits for one where there is nothing else to do."""
        if not self._active:
            self._begin(self._arrived.get())
        while True:
            try:
                self._begin(self._arrived.get_nowait())
            except queue.Empty:
                return

    def _begin(self, sequence: "Decoded | _Change") -> None:
        if isinstance(sequence, _Change):
            try:
                sequence.work()
            except Exception as error:  # noqa: BLE001 - for whoever waits for it
                sequence.done.set_exception(error)
            else:
                sequence.done.set_result(None)
            return
        if sequence.adapter is not None and sequence.adapter not in self.adapters:
            sequence.give(Piece("", (), "stop"))
            return
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
