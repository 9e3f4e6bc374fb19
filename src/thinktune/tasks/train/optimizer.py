"""AdamW, and its moments in a form that every optimizer here reads.

Called by `adapter_optimizer` and `zero`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_blockwise

from thinktune.schema.recipe import TrainSpec

EIGHT_BIT_BLOCK = 256
"""Values that share a scale in bitsandbytes' 8-bit states (arXiv:2110.02861)."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Moments:
    """Adam's state, one tensor per trained parameter and in its shape, float32: the same whether it
    is kept in 8 bits, or divided over any number of ranks."""

    step: float
    """Updates so far, not counting skipped steps."""
    first: list[torch.Tensor]
    second: list[torch.Tensor]


def make_optimizer(
    train: TrainSpec, parameters: Sequence[torch.nn.Parameter], device: torch.device, ranks: int
) -> tuple[torch.optim.Optimizer, str]:
    """The optimizer, and a sentence for the log that says which it is and why."""
    reason = ""
    if train.optimizer == "adamw_8bit":
        if device.type == "cuda" and ranks == 1:
            from bitsandbytes.optim import AdamW8bit

            optimizer = AdamW8bit(parameters, lr=train.lr, weight_decay=train.weight_decay)
            return optimizer, "AdamW with 8-bit states"
        why = "needs a GPU" if ranks == 1 else "does not divide over ranks"
        reason = f" (the 8-bit form {why}; the same method in 32 bits)"
    plain = torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    return plain, f"AdamW{reason}"


def apply_step(optimizer: torch.optim.Optimizer, skip: torch.Tensor) -> None:
    """One step, or none where `skip` is 1. The fused form decides on the device; the 8-bit one
    makes the host wait for it."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = skip  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it
        optimizer.step()
    elif not bool(skip):
        optimizer.step()


def read_moments(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]
) -> tuple[float, list[torch.Tensor], list[torch.Tensor]]:
    """Step and both moments of `parameters` as the optimizer holds them, on their device."""
    step = 0.0
    first: list[torch.Tensor] = []
    second: list[torch.Tensor] = []
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        step = float(state.get("step", 0))
        for moments, names in ((first, ("exp_avg", "1")), (second, ("exp_avg_sq", "2"))):
            plain, number = names
            if not state:
                moments.append(torch.zeros_like(parameter, dtype=torch.float32))
            elif plain in state:
                moments.append(state[plain])
            else:
                moments.append(_from_eight_bits(state, number))
    return step, first, second


def write_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.Tensor],
    step: float,
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
) -> None:
    """The reverse of `read_moments`."""
    eight_bit = not optimizer.defaults.get("fused")
    for number, parameter in enumerate(parameters):
        state = optimizer.state[parameter]
        if eight_bit:
            # bitsandbytes lays its states out by the parameter's size.
            optimizer.init_state(optimizer.param_groups[0], parameter, 0, number)  # type: ignore[attr-defined]
            state["step"] = int(step)
            _to_eight_bits(state, "1", first[number])
            _to_eight_bits(state, "2", second[number])
            continue
        device = parameter.device
        state["step"] = torch.tensor(step, dtype=torch.float32, device=device)
        state["exp_avg"] = first[number].to(device, copy=True)
        state["exp_avg_sq"] = second[number].to(device, copy=True)


def _from_eight_bits(state: dict[str, Any], number: str) -> torch.Tensor:
    values: torch.Tensor = state[f"state{number}"]
    if values.dtype == torch.float32:  # small parameters
        return values
    found: torch.Tensor = dequantize_blockwise(
        values,
        absmax=state[f"absmax{number}"],
        code=state[f"qmap{number}"],
        blocksize=EIGHT_BIT_BLOCK,
    )
    return found


def _to_eight_bits(state: dict[str, Any], number: str, values: torch.Tensor) -> None:
    kept: torch.Tensor = state[f"state{number}"]
    values = values.to(kept.device)
    if kept.dtype == torch.float32:
        kept.copy_(values)
        return
    code, scales = state[f"qmap{number}"], state[f"absmax{number}"]
    flat = torch.zeros(scales.numel() * EIGHT_BIT_BLOCK, device=kept.device)
    flat[: values.numel()] = values.reshape(-1)
    blocks = flat.view(-1, EIGHT_BIT_BLOCK)
    # The signed table ends at -0.993: scaled so, what was in 8 bits before gets its own bytes back.
    largest = blocks.amax(1) / code.max()
    if code.min() < 0:
        largest = torch.maximum(largest, blocks.amin(1) / code.min())
    scales.copy_(largest)
    nearest = torch.bucketize(blocks / largest.clamp_min(TINY)[:, None], (code[1:] + code[:-1]) / 2)
    kept.copy_(nearest.flatten()[: kept.numel()].view_as(kept))
