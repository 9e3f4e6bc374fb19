"""What a fused layer keeps between its passes, and what a row brings along to every layer.

Called by `layer` and `decoder`.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import torch

from thinktune.tasks.model.fused.weights import Mask
from thinktune.tasks.model.packed_row import PackedRow


class Recompute(IntEnum):
    """What the backward pass computes again."""

    ELEMENTWISE = 0
    """Norms and SwiGLU only: no product runs twice."""
    MLP = 1
    """Gate and up too: they are 58% of a layer's products and 60% of what it keeps."""
    LAYER = 2
    """All but the last product: only the layer's input is kept."""


@dataclass
class Pass:
    """What a row brings along to every layer."""

    row: PackedRow
    cos: torch.Tensor
    sin: torch.Tensor
    """(T, head size) each."""
    dropout: float
    """Probability of dropout of the adapters' input; 0 in validation."""
    seed: int
    """Seed of the row's dropout masks."""


@dataclass
class Kept:
    """A layer's activations between its passes; None: to be computed again. `lora_act…`
    are those of the four groups, (T, LoRA columns)."""

    hidden: torch.Tensor
    rstd: torch.Tensor | None = None
    lora_act_qkv: torch.Tensor | None = None
    qkv: torch.Tensor | None = None
    attended: torch.Tensor | None = None
    attention: tuple[torch.Tensor, ...] = ()
    """Log-sum-exp and random state of the attention kernel."""
    lora_act_out: torch.Tensor | None = None
    middle: torch.Tensor | None = None
    middle_rstd: torch.Tensor | None = None
    lora_act_gate_up: torch.Tensor | None = None
    gate_up: torch.Tensor | None = None
    lora_act_down: torch.Tensor | None = None

    def drop(self, level: Recompute) -> None:
        """Frees what `level` computes again."""
        if level == Recompute.LAYER:
            for field in fields(self)[1:]:
                if field.name != "lora_act_down":
                    setattr(self, field.name, field.default)
        elif level == Recompute.MLP:
            self.gate_up = None


@dataclass(frozen=True)
class Masks:
    """The masks of one layer: a function of the row's seed, so that they can be drawn again."""

    seed: int
    probability: float

    def of(self, group: int) -> Mask:
        """The mask of the layer's group of that number."""
        return Mask(self.seed + group, self.probability)
