"""The frozen base divided among ranks, gathered a layer at a time: ZeRO-3 for frozen weights.

Made by `parallel_load`, called around each layer. DeepSpeed's own stage 3 gathers module by module,
in 16 bits or with the quantization state left whole on every rank, and halves the speed at 8B.
Here a layer's packed weights and scales are one sequence of bytes: each rank keeps an equal part of
it, and one all-gather fills one of two slots while the layer before is computed from the other.
Weights are views into the slots that never move, so the code that reads them needs no change.
Embeddings, norms and head stay whole: they are small, and gathering them would cost more than it
saves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

ALIGNMENT = 256
"""Tensors start at multiples of this many bytes."""
SLOTS = 2
"""How many layers can be whole at once: one is computed while the next one arrives."""


@dataclass(frozen=True)
class ByteRange:
    """Where a tensor lies among the bytes of a layer."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view(self, whole: torch.Tensor) -> torch.Tensor:
        """The tensor in `whole`, a layer's bytes."""
        size = self.bytes
        return whole[self.start : self.start + size].view(self.dtype).view(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def lay_out(tensors: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[ByteRange]:
    """Ranges for tensors of these shapes and types, one after the other."""
    ranges = []
    start = 0
    for shape, dtype in tensors:
        found = ByteRange(start, shape, dtype)
        ranges.append(found)
        start += -(-found.bytes // ALIGNMENT) * ALIGNMENT
    return ranges


class ShardedBase:
    """This rank's parts of all layers, and the two slots in which layers are whole."""

    def __init__(self, layers: int, layer_bytes: int, device: torch.device) -> None:
        self._ranks = dist.get_world_size()
        self._rank = dist.get_rank()
        self.part_bytes = -(-layer_bytes // (self._ranks * ALIGNMENT)) * ALIGNMENT
        """Bytes of each layer that each rank keeps."""
        self._parts: list[torch.Tensor] = []
        self._layers = layers
        self._device = device
        whole = self._ranks * self.part_bytes
        self.slots = [torch.empty(whole, dtype=torch.uint8, device=device) for _ in range(SLOTS)]
        """The memory in which layers are whole: layer n in slot n mod 2."""
        self._holds: list[int | None] = [None] * SLOTS
        self._pending: list[Any] = [None] * SLOTS
        self._last = 0
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def keep(self, whole: torch.Tensor, owner: int) -> None:
        """Takes this rank's part of the next layer, from rank `owner`, whose `whole` holds it: as
        long as a slot, uint8."""
        part = torch.empty(self.part_bytes, dtype=torch.uint8, device=self._device)
        parts = list(whole.chunk(self._ranks)) if self._rank == owner else None
        dist.scatter(part, parts, src=owner)
        self._parts.append(part)

    def use(self, number: int) -> None:
        """Makes layer `number` whole for what is launched next, and starts on the one after it.

        All ranks call it in the same order. Layers go up in a forward pass and down in a backward
        one, which is how the next one is known.
        """
        self._fetch(number)
        slot = number % SLOTS
        if self._pending[slot] is not None:
            self._pending[slot].wait()
            self._pending[slot] = None
        going_up = number == 0 or number > self._last
        self._last = number
        following = number + 1 if going_up else number - 1
        if 0 <= following < self._layers:
            self._fetch(following)

    def follow(self, number: int, output: torch.Tensor) -> None:
        """Has the layer whole again before the backward pass of its output."""
        if output.requires_grad:
            output.register_hook(partial(self._again, number))  # type: ignore[no-untyped-call]

    def _again(self, number: int, gradient: torch.Tensor) -> None:
        del gradient
        self.use(number)

    def watch(self, layers: Sequence[torch.nn.Module]) -> None:
        """Calls `use` and `follow` around modules by hooks, so that they need no change."""
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._enter, number))
            layer.register_forward_hook(partial(self._leave, number))

    def _enter(self, number: int, layer: torch.nn.Module, inputs: Any) -> None:
        del layer, inputs
        self.use(number)

    def _leave(self, number: int, layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        del layer, inputs
        self.follow(number, output[0] if isinstance(output, tuple) else output)

    def _fetch(self, number: int) -> None:
        slot = number % SLOTS
        if self._holds[slot] == number:
            return
        self._holds[slot] = number
        if self._stream is None:
            self._pending[slot] = self._gather(number)
            return
        # What still reads the slot was launched before now.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._pending[slot] = self._gather(number)

    def _gather(self, number: int) -> Any:
        slot = self.slots[number % SLOTS]
        if self._device.type == "cpu":  # gloo gathers into a list
            parts = list(slot.chunk(self._ranks))
            return dist.all_gather(parts, self._parts[number], async_op=True)
        return dist.all_gather_into_tensor(slot, self._parts[number], async_op=True)
