"""How likely a model finds given texts, computed in this process. The transformers engine calls it.

Batches are bounded by tokens, logits by rows of a chunk, so that no length of text and no
vocabulary decides how much memory it takes.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from thinktune.tasks.generate.protocol import Completion, Likelihood

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included; a longer text is a batch of its own."""
CHUNK_TOKENS = 256
"""Tokens whose logits are in memory at once: 156 MB in fp32 at a vocabulary of 152,000."""


def scored_batches(completions: Sequence[Completion]) -> list[tuple[Completion, ...]]:
    """All of them in groups of one model and of like length, the same whenever they are asked."""
    found: list[tuple[Completion, ...]] = []
    ordered = sorted(completions, key=lambda each: (each.adapter, _length(each), each.id))
    for _, some in groupby(ordered, key=lambda each: each.adapter):
        batch: list[Completion] = []
        for each in some:  # ascending: the newest is the longest
            if batch and (len(batch) + 1) * _length(each) > BATCH_TOKENS:
                found.append(tuple(batch))
                batch = []
            batch.append(each)
        found.append(tuple(batch))
    return found


def _length(completion: Completion) -> int:
    return len(completion.prompt_ids) + len(completion.ids)


def likelihoods(causal: Any, batch: Sequence[Completion]) -> list[Likelihood]:
    """Those of one batch. `causal` is a causal model of transformers. Padding stands behind the
    texts, where nothing before it looks."""
    texts = [[*each.prompt_ids, *each.ids] for each in batch]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    with torch.inference_mode():
        hidden = causal.model(
            input_ids=ids.to(causal.device),
            attention_mask=mask.to(causal.device),
            use_cache=False,
        ).last_hidden_state
        return [_of_text(causal, states, each) for states, each in zip(hidden, batch, strict=True)]


def _of_text(causal: Any, states: torch.Tensor, each: Completion) -> Likelihood:
    """`states`: the last layer's, (tokens, hidden). The state before a token predicts it."""
    first = len(each.prompt_ids) - 1
    states = states[first : first + len(each.ids)]
    wanted = torch.tensor(each.ids, device=states.device)
    head, total = causal.get_output_embeddings(), 0.0
    for start in range(0, len(each.ids), CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        logits = head(states[chunk]).float()
        chosen = logits.gather(1, wanted[chunk, None])[:, 0] - logits.logsumexp(dim=1)
        total += float(chosen.double().sum())
    return Likelihood(total, len(each.ids))
