"""Causal attention inside each document of a packed row, forward and backward.

Called by `layer`. torch's own flash kernel (arXiv:2307.08691), by the operator beneath
`torch.nn.attention.varlen`: that one copies keys and values for grouped heads in torch 2.11, and
its backward pass is autograd's, which would keep more than a layer wants to.
"""

import torch

from thinktune.tasks.model.packed_row import PackedRow


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row: PackedRow,
    scale: float,
    sliding_window: int | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Shapes: query (T, heads, size), key and value (T, KV heads, size) → (T, heads · size), and
    what `attend_back` needs of it: log-sum-exp and random state."""
    longest = max(row.lengths)
    out, *rest = torch.ops.aten._flash_attention_forward(
        query, key, value, row.boundaries, row.boundaries, longest, longest, 0.0, True, False,
        scale=scale, **_sliding(sliding_window, longest),
    )  # fmt: skip
    return out.flatten(-2), tuple(rest[:3])


def attend_back(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    row: PackedRow,
    scale: float,
    sliding_window: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value, in their shapes."""
    longest, size = max(row.lengths), query.shape[-1]
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        d_out.unflatten(-1, (-1, size)), query, key, value, out.unflatten(-1, (-1, size)),
        state[0], row.boundaries, row.boundaries, longest, longest, 0.0, True, *state[1:],
        scale=scale, **_sliding(sliding_window, longest),
    )  # fmt: skip
    return dq, dk, dv


def _sliding(sliding_window: int | None, longest: int) -> dict[str, int]:
    """The kernel's arguments: a window as long as the longest document has no effect."""
    if sliding_window is None or sliding_window >= longest:
        return {}
    return {"window_size_left": sliding_window - 1, "window_size_right": 0}
