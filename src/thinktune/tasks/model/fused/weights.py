"""Several LoRA projections of one input as one matrix (qkv; gate and up; o; down).

Called by `layer`. Plain PEFT runs, per layer and projection, a dequantization, a matrix product,
two small products, casts, and an addition over the whole output. Here the frozen weights W of a
group of projections are in one matrix whose last rows and columns hold the adapters' A and B (block
diagonal over the group):

        [ W  B ]      forward   [x  s·x·Aᵀ] · [W  B]ᵀ     = x·Wᵀ + s·(x·Aᵀ)·Bᵀ
        [ A  0 ]      backward  [dy  s·dy·B] · [W; A]     = dy·W + s·(dy·B)·A

so each pass is one large product, and no output is read and written again to add an adapter. The
number of these LoRA columns is a multiple of 16, because tensor cores need rows of such lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

from thinktune.schema.fused import ALIGNMENT
from thinktune.tasks.model.fused.kernels import add_dropped, dropped
from thinktune.tasks.model.fused.nf4 import dequantize

ADAPTER = "default"


@dataclass
class Projection:
    """A frozen linear layer, and its adapter where it has one."""

    frozen: torch.nn.Linear
    """The frozen layer; a Linear4bit is a torch.nn.Linear too."""
    lora_a: torch.nn.Parameter | None
    """A: (rank, in features), fp32."""
    lora_b: torch.nn.Parameter | None
    """B: (out features, rank), fp32."""
    scale: float

    @classmethod
    def of(cls, module: torch.nn.Module) -> "Projection":
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
    probability: float

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """x as the adapter sees it."""
        return dropped(x, self.seed, self.probability) if self.probability else x

    def add_gradient(self, dx: torch.Tensor, d_masked: torch.Tensor) -> None:
        """Adds the gradient that came through the mask to dx."""
        add_dropped(dx, d_masked, self.seed, self.probability)


def product_in_fp32(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The product of matrices in half precision, not rounded back to it."""
    return torch.mm(one, other, out_dtype=torch.float32)


class ProjectionGroup:
    """Projections of one input.

    Shapes: `lora_a` (LoRA columns, in features) and `lora_b` (out features, LoRA columns) in half
    precision, brought up to date from the fp32 factors by whoever owns the group; x (T, in
    features), y (T, out features), `lora_act` and `lora_grad` (T, LoRA columns). A padded tensor
    has `padding` columns more, which this class fills and reads.
    """

    padding: int

    def __init__(
        self,
        modules: list[torch.nn.Module],
        dtype: torch.dtype,
        *,
        keep: bool,
        divided: bool = False,
    ) -> None:
        """`keep`: the weights stay unpacked; `divided`: the frozen layers' weights come and go."""
        self.projections = [Projection.of(module) for module in modules]
        self.out_features = sum(p.frozen.out_features for p in self.projections)
        self.in_features = self.projections[0].frozen.in_features
        rank = sum(p.lora_a.shape[0] for p in self.projections if p.lora_a is not None)
        self.lora_columns = -(-rank // ALIGNMENT) * ALIGNMENT
        self.padding = self.lora_columns
        scales = {p.scale for p in self.projections if p.lora_a is not None}
        assert len(scales) <= 1, "one recipe has one rank and one α for all its layers"
        self.scale = scales.pop() if scales else 0.0
        self._device = self.projections[0].frozen.weight.device
        self._dtype = dtype
        self.bias = self._biases()
        device = self._device
        self.lora_a = torch.zeros(self.lora_columns, self.in_features, dtype=dtype, device=device)
        self.lora_b = torch.zeros(self.out_features, self.lora_columns, dtype=dtype, device=device)
        self._cached: torch.Tensor | None = None
        self._caching = False
        quantized = any(isinstance(p.frozen, Linear4bit) for p in self.projections)
        stays = keep or not (quantized or divided)
        self._unpacked = self._unpack_for_good(replace=not quantized) if stays else None

    def new_padded(self, like: torch.Tensor, width: int) -> torch.Tensor:
        """An empty padded tensor: (T, width + padding)."""
        return like.new_empty(len(like), width + self.padding)

    def padded(self, dy: torch.Tensor) -> torch.Tensor:
        """dy with padding: a copy, unless there is none."""
        if not self.padding:
            return dy
        whole = self.new_padded(dy, self.out_features)
        whole[:, : self.out_features] = dy
        return whole

    def lora_act(
        self, x: torch.Tensor, mask: Mask, padded: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The adapters' inner activation s·x·Aᵀ; also written into the padding of `padded`."""
        act = x.new_empty(len(x), self.lora_columns)
        if self.lora_columns:
            torch.addmm(act, mask.apply(x), self.lora_a.T, beta=0, alpha=self.scale, out=act)
            if padded is not None and self.padding:
                padded[:, self.in_features :] = act
        return act

    def product(
        self,
        x: torch.Tensor,
        lora_act: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        padded: bool = False,
    ) -> torch.Tensor:
        """y, plus `residual`; padded if asked for. x may be padded, filled by `lora_act`."""
        weight = self._matrix()[: self.out_features, : x.shape[1]].T
        if padded:
            whole = self.new_padded(x, self.out_features)
        else:
            whole = x.new_empty(len(x), self.out_features)
        y = whole[:, : self.out_features]
        added = self.bias if residual is None else residual
        if added is None:
            torch.mm(x, weight, out=y)
        else:
            torch.addmm(added, x, weight, out=y)
        if residual is not None and self.bias is not None:
            y += self.bias
        if self.lora_columns and x.shape[1] == self.in_features:
            y.addmm_(lora_act, self.lora_b.T)
        return whole

    def lora_grad(self, dy: torch.Tensor) -> torch.Tensor:
        """The gradient of the adapters' x·Aᵀ: s·dy·B; also written into the padding of dy."""
        grad = dy.new_empty(len(dy), self.lora_columns)
        if self.lora_columns:
            dy_alone = dy[:, : self.out_features]
            torch.addmm(grad, dy_alone, self.lora_b, beta=0, alpha=self.scale, out=grad)
            if self.padding:
                dy[:, self.out_features :] = grad
        return grad

    def product_back(self, dy: torch.Tensor, lora_grad: torch.Tensor, mask: Mask) -> torch.Tensor:
        """dx, from a padded dy filled by `lora_grad`."""
        matrix = self._matrix()
        if not mask.probability or not self.lora_columns:
            return dy @ matrix[:, : self.in_features]
        dx = dy[:, : self.out_features] @ matrix[: self.out_features, : self.in_features]
        mask.add_gradient(dx, lora_grad @ self.lora_a)
        return dx

    def factor_gradients(
        self,
        x: torch.Tensor,
        dy: torch.Tensor,
        lora_act: torch.Tensor | None,
        lora_grad: torch.Tensor,
        mask: Mask,
    ) -> list[torch.Tensor]:
        """The gradients of `factors`, in fp32."""
        if not self.lora_columns:
            return []
        assert lora_act is not None
        d_lora_a = product_in_fp32(lora_grad.T, mask.apply(x))
        gradients = []
        for _, outputs, columns in self.adapters():
            gradients.append(d_lora_a[columns])
            gradients.append(product_in_fp32(dy[:, outputs].T, lora_act[:, columns]))
        return gradients

    def cache_matrix(self) -> None:
        """Keeps the next unpacked matrix until `drop_cached_matrix`: it is read twice."""
        self._caching = True

    def drop_cached_matrix(self) -> None:
        """Frees what `cache_matrix` kept."""
        self._caching = False
        self._cached = None

    def adapters(self) -> Iterator[tuple[Projection, slice, slice]]:
        """Each projection with an adapter, its columns of y, its columns of `lora_act`."""
        start = 0
        for projection, outputs in self._outputs():
            if projection.lora_a is not None:
                rank = projection.lora_a.shape[0]
                yield projection, outputs, slice(start, start + rank)
                start += rank

    def factors(self) -> list[torch.nn.Parameter]:
        """A and B of each adapter, in turn."""
        return [
            factor
            for projection, _, _ in self.adapters()
            for factor in (projection.lora_a, projection.lora_b)
            if factor is not None
        ]

    def half_copies(self) -> list[torch.Tensor]:
        """The half-precision copy of each of `factors`, for its owner to bring up to date."""
        return [
            copy
            for _, outputs, columns in self.adapters()
            for copy in (self.lora_a[columns], self.lora_b[outputs, columns])
        ]

    def _matrix(self) -> torch.Tensor:
        """Frozen weights and adapters; shape (out + LoRA columns, in + LoRA columns)."""
        if self._cached is not None:
            return self._cached
        whole = self._unpacked
        if whole is None:
            whole = self._empty()
            self._fill(whole)
        if self.lora_columns:
            whole[self.out_features :, : self.in_features] = self.lora_a
            whole[: self.out_features, self.in_features :] = self.lora_b
        if self._caching:
            self._cached = whole
        return whole

    def _empty(self) -> torch.Tensor:
        shape = (self.out_features + self.lora_columns, self.in_features + self.lora_columns)
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    def _fill(self, whole: torch.Tensor) -> None:
        for projection, rows in self._outputs():
            if isinstance(projection.frozen, Linear4bit):
                dequantize(projection.frozen, whole[rows, : self.in_features])
            else:
                whole[rows, : self.in_features].copy_(projection.frozen.weight)

    def _outputs(self) -> Iterator[tuple[Projection, slice]]:
        """Each projection and its columns of y, which are its rows of the matrix."""
        start = 0
        for projection in self.projections:
            width = projection.frozen.out_features
            yield projection, slice(start, start + width)
            start += width

    def _unpack_for_good(self, *, replace: bool) -> torch.Tensor:
        """Makes the matrix once. `replace`: the 16-bit layers read from it from now on, so that no
        weight is in memory twice."""
        whole = self._empty().zero_()
        self._fill(whole)
        if replace:
            for projection, rows in self._outputs():
                projection.frozen.weight.data = whole[rows, : self.in_features]
        return whole

    def _biases(self) -> torch.Tensor | None:
        """All biases in one vector, zeros where a projection has none; None if none has one."""
        if all(projection.frozen.bias is None for projection in self.projections):
            return None
        whole = torch.zeros(self.out_features, dtype=self._dtype, device=self._device)
        for projection, rows in self._outputs():
            if projection.frozen.bias is not None:
                whole[rows] = projection.frozen.bias.detach()
        return whole
