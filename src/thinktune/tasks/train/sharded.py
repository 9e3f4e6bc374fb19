"""The frozen base divided among ranks, gathered a layer at a time: ZeRO-3 of what never changes.

Made by `together`, called around each layer. DeepSpeed's own stage 3 gathers module by module,
in 16 bits or with the quantization state left whole on every rank, and halves the speed at 8B.
Here a layer's packed weights and scales are one run of bytes: each rank keeps an equal part of it,
and one all-gather fills one of two slots while the layer before is at work in the other. Weights
are views into the slots, fixed for good, so nothing downstream knows. Embeddings, norms and head
stay whole: they are small, and gathering them would cost more than it saves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

ALIGNMENT = 256
"""Bytes at whose multiples tensors start."""
SLOTS = 2


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a layer's bytes."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view(self, whole: torch.Tensor) -> torch.Tensor:
        """The tensor in `whole`, a layer's bytes."""
        size = self.bytes
        return whole[self.start : self.start + size].view(self.dtype).view(self.shape)

    @property
    def bytes(self) -> int:
        """Its size."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def lay_out(tensors: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Place]:
    """Tensors of these shapes one after the other."""
    places, start = [], 0
    for shape, dtype in tensors:
        place = Place(start, shape, dtype)
        places.append(place)
        start += -(-place.bytes // ALIGNMENT) * ALIGNMENT
    return places


class ShardedBase:
    """Parts of all layers, and the two slots."""

    def __init__(self, layers: int, layer_bytes: int, device: torch.device) -> None:
        self._ranks, self._rank = dist.get_world_size(), dist.get_rank()
        self.part_bytes = -(-layer_bytes // (self._ranks * ALIGNMENT)) * ALIGNMENT
        """Of a layer, on each rank."""
        self._parts: list[torch.Tensor] = []
        self._layers, self._device = layers, device
        whole = self._ranks * self.part_bytes
        self.slots = [torch.empty(whole, dtype=torch.uint8, device=device) for _ in range(SLOTS)]
        """Where a layer is whole: the layer of number n in slot n mod 2."""
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
        """Calls `use` and `follow` around modules that know nothing of it."""
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
