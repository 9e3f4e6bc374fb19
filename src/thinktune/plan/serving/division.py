"""How vLLM divides a model among GPUs: which of its weights each of them has, and which sizes go.

Called by `memory`. Layers are divided by tensor parallelism (arXiv:1909.08053), and the layers
among pipeline stages as `vllm.distributed.utils.get_pp_indices` does.
"""

from dataclasses import dataclass
from functools import lru_cache

from thinktune.plan import shapes
from thinktune.plan.shapes import Linear
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.serving import Precision

BY_INPUT = frozenset({"o_proj", "down_proj"})
"""Linears whose inputs are divided (row parallel)."""
WHOLE = frozenset({"q_a_proj", "kv_a_proj_with_mqa"})
"""Linears that every GPU has whole. The outputs of all others are divided (column parallel)."""
VOCABULARY_MULTIPLE = 64
"""vLLM pads the vocabulary to a multiple of this."""
FP8_BLOCK = 128
"""Weights of released FP8 checkpoints have a scale for each block of 128 × 128, which no GPU may
have a part of (DeepSeek-V3, arXiv:2412.19437, section 3.3)."""
AWQ_INPUT_MULTIPLE = 128
"""Inputs of a 4-bit linear on one GPU are a multiple of this: of its groups, and of the tiles that
the Marlin kernel reads."""


@dataclass(frozen=True)
class Part:
    """The part of a model that each GPU of one pipeline stage has."""

    dense_layers: int
    sparse_layers: int
    embedding: bool
    """Whether it has the embedding: the first stage, and the last where the head shares it."""
    head: bool
    """Whether it has the output head, and chooses tokens: the last stage."""

    @property
    def layers(self) -> int:
        """Layers of the stage."""
        return self.dense_layers + self.sparse_layers


@lru_cache(maxsize=1024)
def parts(model: ModelEntry, pipeline: int) -> tuple[Part, ...]:
    """What GPUs of the pipeline stages have, each kind once and in order. Layers that do not divide
    go to the stages before the last."""
    sizes = [model.layers // pipeline] * pipeline
    for back in range(2, model.layers % pipeline + 2):
        sizes[-back] += 1
    found, start = [], 0
    dense = shapes.dense_layers(model)
    for stage, size in enumerate(sizes):
        leading = min(size, max(0, dense - start))
        last = stage == pipeline - 1
        embedding = stage == 0 or (last and model.tied_embeddings)
        found.append(Part(leading, size - leading, embedding, last))
        start += size
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)
def local_linears(
    model: ModelEntry, tensor: int, part: Part
) -> tuple[tuple[Linear, tuple[int, int]], ...]:
    """Each kind of linear of a stage with its copies there, and the inputs and outputs of it that
    one GPU has."""
    found = []
    for layers, sparse in ((part.dense_layers, False), (part.sparse_layers, True)):
        if not layers:
            continue
        for one in shapes.layer_linears(model, sparse=sparse):
            linear = Linear(one.name, one.inputs, one.outputs, one.copies * layers, one.routed)
            found.append((linear, local_shape(model, one, tensor)))
    return tuple(found)


def local_shape(model: ModelEntry, linear: Linear, tensor: int) -> tuple[int, int]:
    """Inputs and outputs of a linear on one GPU."""
    if linear.name in WHOLE:
        return linear.inputs, linear.outputs
    if linear.name in BY_INPUT:
        return linear.inputs // tensor, linear.outputs
    if linear.name in ("k_proj", "v_proj"):
        return linear.inputs, local_kv_heads(model, tensor) * model.head_size
    return linear.inputs, linear.outputs // tensor


def local_kv_heads(model: ModelEntry, tensor: int) -> int:
    """Key and value heads on one GPU; with fewer heads than GPUs, several have the same one."""
    return max(1, model.kv_heads // tensor)


def local_vocabulary(model: ModelEntry, tensor: int) -> int:
    """Rows of the embedding on one GPU."""
    padded = -(-model.vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    return padded // tensor


@lru_cache(maxsize=1024)
def divides(model: ModelEntry, precision: Precision, tensor: int) -> bool:
    """Whether vLLM takes the model divided among this many GPUs."""
    if model.heads % tensor or VOCABULARY_MULTIPLE % tensor:
        return False
    if model.mla is None and model.kv_heads % tensor and tensor % model.kv_heads:
        return False
    for sparse in {False, model.moe is not None}:
        for linear in shapes.layer_linears(model, sparse=sparse):
            if not _linear_divides(model, linear, precision, tensor):
                return False
    return True


def _linear_divides(model: ModelEntry, linear: Linear, precision: Precision, tensor: int) -> bool:
    if linear.name in WHOLE or tensor == 1:
        return True
    divided = linear.inputs if linear.name in BY_INPUT else linear.outputs
    if linear.name not in ("k_proj", "v_proj") and divided % tensor:
        return False
    inputs, outputs = local_shape(model, linear, tensor)
    if precision == "awq":
        return inputs % AWQ_INPUT_MULTIPLE == 0
    if precision == "fp8" and model.dtype == "float8_e4m3fn":
        return inputs % FP8_BLOCK == 0 and outputs % FP8_BLOCK == 0
    return True
