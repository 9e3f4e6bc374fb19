"""Which engine answers the questions of an evaluation, and how much it computes at once.

Read by the plan and by the engines themselves, so that both follow one rule.
"""

import math
from dataclasses import dataclass

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EngineChoice, EngineName, Precision

LEAST_CAPABILITY = (8, 0)
"""The oldest GPUs on which vLLM is taken without being asked for: Ampere. On a T4 (7.5) it has no
FlashAttention, no bfloat16 and no tested way for 4-bit bases."""

WINDOW_STEP = 1024
"""vLLM's window is rounded up to a multiple of this, so that compiled graphs are found again."""
MOST_SEQUENCES, MEMORY_SHARE = 512, 0.9
"""Sequences that vLLM computes at once, and the share of a GPU's memory that it takes."""
INSTRUCTION_MARGIN_TOKENS = 64
"""Room in the window for an instruction's tokens beyond those that were counted."""

CPU_ROWS = 16
"""Requests in a batch of transformers on a CPU, where more of them save little."""
MOST_ROWS = 512
USABLE = 0.8
"""Share of a GPU's memory that weights, cache and logits may take with transformers."""
UNPACKED_SHARE = 0.4
"""Largest share of a GPU's memory that unpacked weights may take beside an evaluation's cache."""
PACKED_BYTES = 0.7
"""Bytes per weight of a 4-bit base, its embeddings in 16 bits."""
LOGIT_BYTES = 32
"""Bytes per row and entry of the vocabulary while a token is drawn: logits, probabilities, their
order and sums."""
CACHE_COPIES = 1.25
"""The cache grows by copying one layer at a time."""


@dataclass(frozen=True)
class Chosen:
    """An engine, and why that one."""

    name: EngineName
    reason: str
    """For the log and the report."""


def choose(
    wanted: EngineChoice,
    model: ModelEntry,
    capability: tuple[int, int] | None,
    *,
    vllm_installed: bool,
) -> Chosen:
    """`capability`: that of the GPU; None on a machine without one. Raises SpecInvalid where the
    recipe names an engine that is not there."""
    if wanted == "vllm" and not vllm_installed:
        fault = "vLLM is not installed here"
        remedy = "take the image evaluate, or set evaluate.engine=transformers"
        raise SpecInvalid("evaluate.engine", fault, remedy)
    if wanted != "auto":
        return Chosen(wanted, "the recipe names it")
    if capability is None:
        return Chosen("transformers", "there is no GPU")
    if not vllm_installed:
        return Chosen("transformers", "vLLM is not installed here")
    if capability < LEAST_CAPABILITY:
        of_gpu = ".".join(map(str, capability))
        least = ".".join(map(str, LEAST_CAPABILITY))
        return Chosen("transformers", f"the GPU has compute capability {of_gpu}, below {least}")
    if model.moe is not None:
        return Chosen("transformers", "vLLM takes no adapter on experts")
    return Chosen("vllm", "there is a GPU that it runs on")


def vllm_window(tokens: int, context: int | None) -> int:
    """The window that vLLM gets for a longest prompt with its answer of `tokens`; `context` is the
    most that the model has."""
    rounded = -(-tokens // WINDOW_STEP) * WINDOW_STEP
    return rounded if context is None else min(rounded, context)


def rows_at_once(model: ModelEntry, base: Precision, tokens: int, memory: int | None) -> int:
    """How many rows of `tokens` transformers computes at once beside the weights, which may be
    unpacked. `memory`: bytes that the GPU has; None for a CPU."""
    if memory is None:
        return CPU_ROWS
    return max(1, min(MOST_ROWS, rows_that_fit(model, base, tokens, memory)))


def rows_that_fit(model: ModelEntry, base: Precision, tokens: int, memory: int) -> int:
    """How many rows of `tokens` a GPU with `memory` bytes holds beside the weights, with
    transformers; 0 or less where not one fits."""
    cached = 2 * model.layers * model.kv_heads * model.head_size * 2 * tokens
    row = CACHE_COPIES * cached + LOGIT_BYTES * model.vocabulary
    weights = 2 * model.parameters
    if base == "nf4" and weights > UNPACKED_SHARE * memory:
        weights = int(PACKED_BYTES * model.parameters)
    return math.floor((USABLE * memory - weights) / row)
