"""Attention over packed rows that never crosses a document, registered with transformers.

Two forms of the same function, chosen by what the device can do: one varlen kernel over all
documents (a GPU with bf16 or fp16, `torch.nn.attention.varlen`), or causal attention document by
document (everything else). Called by `stage`, which names the chosen form in the log.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from thinktune.schema.fused import head_fits

VARLEN = "thinktune_varlen"
PER_DOCUMENT = "thinktune_per_document"


def choose_attention(device: torch.device, dtype: torch.dtype, head_size: int) -> str:
    """Registers both forms and gives the name of the one to use."""
    AttentionInterface.register(VARLEN, _varlen)
    AttentionInterface.register(PER_DOCUMENT, _per_document)
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type != "cuda" or not half or not head_fits(head_size):
        return PER_DOCUMENT
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return VARLEN
    return PER_DOCUMENT


def _per_document(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: tuple[int, ...],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Shapes: query (1, heads, T, size), key and value (1, KV heads, T, size); gives
    (1, T, heads, size)."""
    del module, attention_mask, others
    grouped = query.shape[1] != key.shape[1]
    parts = [
        scaled_dot_product_attention(
            q, k, v, scale=scaling, enable_gqa=grouped, **_mask(q, sliding_window)
        )
        for q, k, v in zip(
            torch.split(query, list(document_lengths), dim=2),
            torch.split(key, list(document_lengths), dim=2),
            torch.split(value, list(document_lengths), dim=2),
            strict=True,
        )
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _mask(query: torch.Tensor, sliding_window: int | None) -> dict[str, Any]:
    """Causal; a mask is needed only where a window is shorter than the document."""
    length = query.shape[2]
    if sliding_window is None or sliding_window >= length:
        return {"is_causal": True}
    band = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    return {"attn_mask": band.triu(1 - sliding_window)}


def _varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: tuple[int, ...],
    document_boundaries: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """As `_per_document`, in one kernel; the longest length is a number, so nothing waits for the
    GPU."""
    from torch.nn.attention.varlen import varlen_attn

    del module, attention_mask, others
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    longest = max(document_lengths)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    out = varlen_attn(
        q,
        k,
        v,
        document_boundaries,
        document_boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
    )
    assert isinstance(out, torch.Tensor)  # a pair only where the log-sum-exp is asked for
    return out.unsqueeze(0), None
