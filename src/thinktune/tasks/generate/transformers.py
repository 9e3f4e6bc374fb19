"""The engine that runs transformers in this process: left-padded batches, one after the other.

Base and tuned are one model in memory, the adapter off and on, so that they differ in nothing else.
It runs wherever PyTorch does.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.engines import rows_at_once
from thinktune.tasks.generate.drawing import Drawing
from thinktune.tasks.generate.likelihood import likelihoods, scored_batches
from thinktune.tasks.generate.protocol import (
    Answer,
    Batch,
    Completion,
    Likelihood,
    Request,
    Sampling,
)
from thinktune.tasks.model.base import (
    Base,
    Dtype,
    compute_dtype,
    device_memory,
    device_name,
    load_base,
    local_device,
    unpack,
)
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop


class TransformersEngine:
    """See `protocol.Engine`."""

    name = "transformers"
    unit = "decoding steps at most"
    """Decoding steps are what takes the time; answers often end before the last one."""

    def __init__(
        self,
        weights: Path,
        adapter: Path | None,
        *,
        entry: ModelEntry,
        base: Base,
        dtype: Dtype,
        rows: int | None = None,
    ) -> None:
        """`weights` and `adapter` are folders; without an adapter, no request may want it. `rows`:
        requests in a batch; None takes as many as the device's memory holds."""
        self._weights = weights
        self._adapter = adapter
        self._entry = entry
        self._base: Base = base
        self._dtype: Dtype = dtype
        self._rows = rows
        self._model: PreTrainedModel | PeftModel | None = None

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Batch]:
        """Neighbors in length share a batch, so that little is padding."""
        found: list[Batch] = []
        ordered = sorted(requests, key=lambda r: (r.adapter, len(r.prompt_ids), r.id))
        for _, some in groupby(ordered, key=lambda request: request.adapter):
            alike = list(some)
            size = self._rows or self._fitting(len(alike[-1].prompt_ids) + sampling.max_new_tokens)
            found += [tuple(alike[n : n + size]) for n in range(0, len(alike), size)]
        return found

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        """Decoding steps, if no answer ends before the limit."""
        return len(batches) * sampling.max_new_tokens

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        """The answers of one batch after the other, those of a batch all at once."""
        for batch in batches:
            model = self._loaded(reporter)
            # Not around the yield: the caller may never come back for the rest.
            with _base_alone(model) if not batch[0].adapter else nullcontext():
                answers = _generate(model, batch, sampling, reporter, stop)
            yield from answers

    def likelihoods(
        self, completions: Sequence[Completion], reporter: Reporter, stop: Stop
    ) -> list[Likelihood]:
        """As `protocol.Engine.likelihoods`."""
        found: dict[str, Likelihood] = {}
        for batch in scored_batches(completions):
            stop.check("evaluate")
            model = self._loaded(reporter)
            with _base_alone(model) if not batch[0].adapter else nullcontext():
                causal = model.get_base_model() if isinstance(model, PeftModel) else model
                of_batch = likelihoods(causal, batch)
            found.update(zip((each.id for each in batch), of_batch, strict=True))
            reporter.advance(len(batch))
        return [found[each.id] for each in completions]

    def close(self) -> None:
        """Gives the model's memory back."""
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fitting(self, tokens: int) -> int:
        """How many rows of that length fit the GPU beside the weights, which may be unpacked."""
        return rows_at_once(self._entry, self._base, tokens, device_memory(local_device()))

    def _loaded(self, reporter: Reporter) -> PreTrainedModel | PeftModel:
        """The model, loaded when the first batch needs it: a finished evaluation needs none."""
        if self._model is None:
            device = local_device()
            dtype = compute_dtype(self._dtype, device)
            reporter.say(f"loads {self._entry.repo} ({self._base})")
            base = load_base(self._weights, self._base, dtype, device, attention="sdpa")
            unpack(base)
            if self._adapter is not None:
                base = PeftModel.from_pretrained(base, str(self._adapter))
            self._model = base.eval()
            reporter.say(f"{device_name(device)}, {dtype}".replace("torch.", ""))
        return self._model


def _base_alone(model: PreTrainedModel | PeftModel) -> AbstractContextManager[Any]:
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


class _TokenWatch(StoppingCriteria):  # type: ignore[misc]
    """Called after each token: shows life, and ends the batch when the process is asked to."""

    def __init__(self, reporter: Reporter, stop: Stop) -> None:
        self._reporter = reporter
        self._stop = stop

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **others: Any) -> torch.Tensor:
        del scores, others
        self._reporter.advance(1)
        stop = self._stop.requested
        return torch.full((ids.shape[0],), stop, dtype=torch.bool, device=ids.device)


class _Drawn(LogitsProcessor):  # type: ignore[misc]
    """Leaves the drawn token alone in each row, which greedy decoding then takes."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del ids
        drawn = self._drawing.next(scores)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def _generate(
    model: PreTrainedModel, batch: Batch, sampling: Sampling, reporter: Reporter, stop: Stop
) -> list[Answer]:
    """Answers of one batch. Raises Preempted when asked to stop; the next attempt then does the
    batch again."""
    prompts = [request.prompt_ids for request in batch]
    longest = max(len(prompt) for prompt in prompts)
    pad = sampling.stop_ids[0]
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    processors = LogitsProcessorList()
    if sampling.temperature > 0:
        seeds = [request.seed for request in batch]
        processors.append(_Drawn(Drawing(seeds, sampling.temperature, sampling.top_p)))
    began = time.monotonic()
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=list(sampling.stop_ids),
            pad_token_id=pad,
            do_sample=False,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([_TokenWatch(reporter, stop)]),
        )
    stop.check("generation")
    reporter.advance(sampling.max_new_tokens - (out.shape[1] - longest))
    seconds = time.monotonic() - began  # of all: a batch ends with its longest answer
    return [
        replace(_until_stop(request.id, row[longest:].tolist(), sampling.stop_ids), seconds=seconds)
        for request, row in zip(batch, out, strict=True)
    ]


def _until_stop(request_id: str, ids: list[int], stop_ids: Sequence[int]) -> Answer:
    for position, token in enumerate(ids):
        if token in stop_ids:
            return Answer(request_id, tuple(ids[:position]), finished=True)
    return Answer(request_id, tuple(ids), finished=False)
