"""Several LoRA projections of one input as one matrix (qkv; gate and up; o; down).

Called by `layer`. Plain PEFT runs, per layer and projection, a dequantization, a matrix product,
two small products, casts and an add over the whole output. Here a group's frozen weights W stand
in one matrix with a margin that holds the adapters' A and B (block diagonal over the group):

        [ W  B ]      forward   [x  s·x·Aᵀ] · [W  B]ᵀ     = x·Wᵀ + s·(x·Aᵀ)·Bᵀ
        [ A  0 ]      backward  [dy  s·dy·B] · [W; A]     = dy·W + s·(dy·B)·A

so each pass is one large product, and no output is read and written again to add an adapter. The
margin is a multiple of 16 columns, which is what tensor cores want of a row's length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

from thinktune.schema.fused import ALIGNMENT
from thinktune.tasks.train.fused.kernels import add_dropped, dropped
from thinktune.tasks.train.fused.nf4 import dequantize

ADAPTER = "default"


@dataclass
class Part:
    """One projection: its frozen layer, and its adapter where it has one."""

    frozen: torch.nn.Linear
    """A Linear4bit is one too."""
    down: torch.nn.Parameter | None
    """A: (rank, in), fp32."""
    up: torch.nn.Parameter | None
    """B: (out, rank), fp32."""
    scale: float

    @classmethod
    def of(cls, module: torch.nn.Module) -> "Part":
        """Reads a PEFT layer, or a frozen one without an adapter."""
        if not isinstance(module, LoraLayer):
            assert isinstance(module, torch.nn.Linear)
            return cls(module, None, None, 0.0)
        return cls(
            module.get_base_layer(),
            module.lora_A[ADAPTER].weight,
            module.lora_B[ADAPTER].weight,
            module.scaling[ADAPTER],
        )


@dataclass(frozen=True)
class Mask:
    """LoRA dropout of one group's input. PEFT draws one mask per projection, here the projections
    of a group share one: each sees the same distribution, and the input is masked once."""

    seed: int
    chance: float

    def on(self, x: torch.Tensor) -> torch.Tensor:
        """x as the adapter sees it."""
        return dropped(x, self.seed, self.chance) if self.chance else x

    def add(self, dx: torch.Tensor, d_masked: torch.Tensor) -> None:
        """Adds the gradient that came through the mask."""
        add_dropped(dx, d_masked, self.seed, self.chance)


def product_in_fp32(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of matrices in half precision, not rounded back to it."""
    return torch.mm(one, other, out_dtype=torch.float32)


class Group:
    """Projections of one input.

    Shapes: `down` (margin, ins), `up` (outs, margin) in half precision, brought up to date from the
    fp32 factors by whoever owns the group; x (T, ins), y (T, outs), `low` (T, margin). A tensor
    "with room" has `spare` columns more, which belong to this class.
    """

    spare: int

    def __init__(
        self,
        modules: list[torch.nn.Module],
        dtype: torch.dtype,
        *,
        keep: bool,
        divided: bool = False,
    ) -> None:
        """`keep`: unpacked for good; `divided`: the frozen layers' weights come and go."""
        self.parts = [Part.of(module) for module in modules]
        self.outs = sum(part.frozen.out_features for part in self.parts)
        self.ins = self.parts[0].frozen.in_features
        rank = sum(part.down.shape[0] for part in self.parts if part.down is not None)
        self.margin = self.spare = -(-rank // ALIGNMENT) * ALIGNMENT
        scales = {part.scale for part in self.parts if part.down is not None}
        assert len(scales) <= 1, "one recipe has one rank and one α for all its layers"
        self.scale = scales.pop() if scales else 0.0
        self._device, self._dtype = self.parts[0].frozen.weight.device, dtype
        self.bias = self._biases()
        self.down = torch.zeros(self.margin, self.ins, dtype=dtype, device=self._device)
        self.up = torch.zeros(self.outs, self.margin, dtype=dtype, device=self._device)
        self._held: torch.Tensor | None = None
        self._holding = False
        quantized = any(isinstance(part.frozen, Linear4bit) for part in self.parts)
        stays = keep or not (quantized or divided)
        self._kept = self._keep(replace=not quantized) if stays else None

    def room(self, like: torch.Tensor, width: int) -> torch.Tensor:
        """An empty (T, width) with room."""
        return like.new_empty(len(like), width + self.spare)

    def with_room(self, dy: torch.Tensor) -> torch.Tensor:
        """dy, copied if it has to be."""
        if not self.spare:
            return dy
        whole = self.room(dy, self.outs)
        whole[:, : self.outs] = dy
        return whole

    def low(self, x: torch.Tensor, mask: Mask, room: torch.Tensor | None = None) -> torch.Tensor:
        """s·x·Aᵀ; also into the margin of `room`."""
        low = x.new_empty(len(x), self.margin)
        if self.margin:
            torch.addmm(low, mask.on(x), self.down.T, beta=0, alpha=self.scale, out=low)
            if room is not None and self.spare:
                room[:, self.ins :] = low
        return low

    def product(
        self,
        x: torch.Tensor,
        low: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        roomy: bool = False,
    ) -> torch.Tensor:
        """y, plus `residual`; with room if asked for. x may have room, filled by `low`."""
        weight = self._matrix()[: self.outs, : x.shape[1]].T
        whole = self.room(x, self.outs) if roomy else x.new_empty(len(x), self.outs)
        y = whole[:, : self.outs]
        added = self.bias if residual is None else residual
        if added is None:
            torch.mm(x, weight, out=y)
        else:
            torch.addmm(added, x, weight, out=y)
        if residual is not None and self.bias is not None:
            y += self.bias
        if self.margin and x.shape[1] == self.ins:
            y.addmm_(low, self.up.T)
        return whole

    def low_back(self, dy: torch.Tensor) -> torch.Tensor:
        """s·dy·B, also into the room of dy."""
        low = dy.new_empty(len(dy), self.margin)
        if self.margin:
            torch.addmm(low, dy[:, : self.outs], self.up, beta=0, alpha=self.scale, out=low)
            if self.spare:
                dy[:, self.outs :] = low
        return low

    def product_back(self, dy: torch.Tensor, low_back: torch.Tensor, mask: Mask) -> torch.Tensor:
        """dx, from dy with its room filled by `low_back`."""
        if not mask.chance or not self.margin:
            return dy @ self._matrix()[:, : self.ins]
        dx = dy[:, : self.outs] @ self._matrix()[: self.outs, : self.ins]
        mask.add(dx, low_back @ self.down)
        return dx

    def factor_gradients(
        self,
        x: torch.Tensor,
        dy: torch.Tensor,
        low: torch.Tensor | None,
        low_back: torch.Tensor,
        mask: Mask,
    ) -> list[torch.Tensor]:
        """The gradients of `factors`, in fp32."""
        if not self.margin:
            return []
        assert low is not None
        down = product_in_fp32(low_back.T, mask.on(x))
        gradients = []
        for _, columns, rows in self.adapters():
            gradients.append(down[rows])
            gradients.append(product_in_fp32(dy[:, columns].T, low[:, rows]))
        return gradients

    def hold(self) -> None:
        """Keeps the next unpacked matrix until `release`: it is read twice."""
        self._holding = True

    def release(self) -> None:
        """Lets go of what `hold` kept."""
        self._holding, self._held = False, None

    def adapters(self) -> Iterator[tuple[Part, slice, slice]]:
        """Each part with an adapter, its columns of the group's output, its place in the margin."""
        start = 0
        for part, columns in self._rows():
            if part.down is not None:
                yield part, columns, slice(start, start + part.down.shape[0])
                start += part.down.shape[0]

    def factors(self) -> list[torch.nn.Parameter]:
        """A and B of each adapter, in turn."""
        return [f for part, _, _ in self.adapters() for f in (part.down, part.up) if f is not None]

    def halves(self) -> list[torch.Tensor]:
        """Where each of `factors` goes, in half precision."""
        return [
            half
            for _, columns, rows in self.adapters()
            for half in (self.down[rows], self.up[columns, rows])
        ]

    def _matrix(self) -> torch.Tensor:
        """Frozen weights and margin: (outs + margin, ins + margin)."""
        whole = self._held
        if whole is None:
            whole = self._kept
            if whole is None:
                whole = self._empty()
                self._fill(whole)
            if self.margin:
                whole[self.outs :, : self.ins] = self.down
                whole[: self.outs, self.ins :] = self.up
        if self._holding:
            self._held = whole
        return whole

    def _empty(self) -> torch.Tensor:
        shape = (self.outs + self.margin, self.ins + self.margin)
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    def _fill(self, whole: torch.Tensor) -> None:
        for part, rows in self._rows():
            if isinstance(part.frozen, Linear4bit):
                dequantize(part.frozen, whole[rows, : self.ins])
            else:
                whole[rows, : self.ins].copy_(part.frozen.weight)

    def _rows(self) -> Iterator[tuple[Part, slice]]:
        start = 0
        for part in self.parts:
            yield part, slice(start, start + part.frozen.out_features)
            start += part.frozen.out_features

    def _keep(self, *, replace: bool) -> torch.Tensor:
        """Makes the matrix once; 16-bit layers then read from it, so nothing stands twice."""
        whole = self._empty().zero_()
        self._fill(whole)
        if replace:
            for part, rows in self._rows():
                part.frozen.weight.data = whole[rows, : self.ins]
        return whole

    def _biases(self) -> torch.Tensor | None:
        """All biases in a row, zeros where a projection has none; None if none has."""
        if all(part.frozen.bias is None for part in self.parts):
            return None
        whole = torch.zeros(self.outs, dtype=self._dtype, device=self._device)
        for part, rows in self._rows():
            if part.frozen.bias is not None:
                whole[rows] = part.frozen.bias.detach()
        return whole
