"""Generation in batches, left-padded, with progress inside a batch and a clean stop.

Called by `stage`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from thinktune.schema.recipe import EvaluateSpec
from thinktune.tasks.runtime.entry import Context


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Called after each token: shows life, and ends the batch when the process is asked to."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **others: Any) -> torch.Tensor:
        del scores, others
        self._context.reporter.advance(1)
        stop = self._context.stop.requested
        return torch.full((ids.shape[0],), stop, dtype=torch.bool, device=ids.device)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    spec: EvaluateSpec,
    *,
    seed: int,
    end: Sequence[int],
    context: Context,
) -> list[tuple[list[int], bool]]:
    """Token ids generated after each prompt, end token left out, and whether it ended by itself.

    Progress moves by `max_new_tokens` in all, however soon the answers end. Raises Preempted when
    asked to stop; the batch is then done again by the next attempt.
    """
    longest = max(len(prompt) for prompt in prompts)
    pad = end[0]
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    sampling: dict[str, Any] = {"do_sample": False}
    if spec.temperature > 0:
        sampling = {"do_sample": True, "temperature": spec.temperature, "top_p": spec.top_p}
        sampling["top_k"] = 0  # the library's own default is 50
    torch.manual_seed(seed)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=spec.max_new_tokens,
            eos_token_id=list(end),
            pad_token_id=pad,
            stopping_criteria=StoppingCriteriaList([_Watch(context)]),
            **sampling,
        )
    context.stop.check("evaluate")
    context.reporter.advance(spec.max_new_tokens - (out.shape[1] - longest))
    return [_until_end(row[longest:].tolist(), end) for row in out]


def _until_end(ids: list[int], end: Sequence[int]) -> tuple[list[int], bool]:
    for position, token in enumerate(ids):
        if token in end:
            return ids[:position], True
    return ids, False
