"""Which engine answers: by what is installed and what the GPU can, unless the recipe names one."""

import importlib.util
from dataclasses import dataclass

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EngineChoice, EngineName

LEAST_CAPABILITY = (8, 0)
"""The oldest GPUs on which vLLM is taken without being asked for: Ampere. On a T4 (7.5) it has no
FlashAttention, no bfloat16 and no tested way for 4-bit bases."""


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


def vllm_installed() -> bool:
    """Whether vLLM can be imported; it is not imported."""
    return importlib.util.find_spec("vllm") is not None
