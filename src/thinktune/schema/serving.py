"""How a model is served: what the plan decides, and the arguments of vLLM that follow from it.

The plan makes it, the launcher puts it into chart values, and the container starts vLLM by it, so
that all of them mean the same server.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.errors import SpecInvalid

Precision = Literal["16bit", "fp8", "awq", "nf4"]
"""How served weights are kept. `fp8`: as released, or quantized while loading; `awq`: a 4-bit
checkpoint made beforehand; `nf4`: quantized by bitsandbytes while loading, as in training."""
KvDtype = Literal["auto", "fp8"]
"""Type of the KV cache; `auto` is the type in which the model computes."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes as max_lora_rank."""


def adapter_rank(config: Mapping[str, Any]) -> int:
    """The highest rank of any layer, of PEFT's configuration of an adapter."""
    return max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 0)


def lora_rank_setting(rank: int, place: str, remedy: str) -> int:
    """The rank, rounded up to a value that vLLM takes. Raises SpecInvalid for one that is too high,
    with that place and remedy."""
    if rank > LORA_RANKS[-1]:
        fault = f"rank {rank}, and vLLM takes {LORA_RANKS[-1]} at most"
        raise SpecInvalid(place, fault, remedy)
    return next(setting for setting in LORA_RANKS if setting >= rank)


class ServeExecution(Closed):
    """How the plan decided to serve a model: all that changes memory, speed or precision."""

    precision: Precision
    """How the weights are kept."""
    quantization: Literal["fp8", "bitsandbytes"] | None
    """What vLLM quantizes the weights with while it loads them. Null if the checkpoint is served as
    it is."""
    dtype: Literal["bfloat16", "float16"]
    """Type in which the model computes."""
    kv_dtype: KvDtype = "auto"
    """Type of the KV cache."""
    tensor_parallel: Count
    """Number of GPUs that each layer is divided among."""
    pipeline_parallel: Count = 1
    """Number of groups of such GPUs, each with some of the layers."""
    data_parallel: Count = 1
    """Number of copies of the model in one server."""
    nodes: Count = 1
    """Number of nodes that one server takes."""
    max_model_len: Count
    """Window in tokens: the longest prompt with its answer."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    """Share of each GPU's memory that vLLM may fill."""
    max_num_seqs: Count
    """Requests that one copy computes at once. Others wait."""
    max_num_batched_tokens: Count
    """Tokens that one copy computes in one step."""
    max_loras: Annotated[int, Field(ge=0)] = 0
    """Number of adapters on the GPU at once; 0 serves the base alone."""
    max_lora_rank: Count = LORA_RANKS[2]
    """Rank that each adapter's place on the GPU has."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers that adapters change. vLLM has no place for one on others, and ignores what an
    adapter has there."""
    eager: bool = False
    """Compute without CUDA graphs, which saves their memory and slows decoding down."""
    ready_timeout_s: Count
    """Seconds that vLLM's front end waits for its engine to load."""


def vllm_arguments(execution: ServeExecution) -> tuple[str, ...]:
    """The arguments of `vllm serve` that follow from the plan, for every node alike.

    Model, address, key and the node's own rank are added by whoever starts it.
    """
    found: dict[str, str | int | float] = {
        "dtype": execution.dtype,
        "max-model-len": execution.max_model_len,
        "gpu-memory-utilization": execution.gpu_memory_utilization,
        "max-num-seqs": execution.max_num_seqs,
        "max-num-batched-tokens": execution.max_num_batched_tokens,
        "tensor-parallel-size": execution.tensor_parallel,
        "pipeline-parallel-size": execution.pipeline_parallel,
        "data-parallel-size": execution.data_parallel,
        "kv-cache-dtype": execution.kv_dtype,
    }
    if execution.nodes > 1:
        found["nnodes"] = execution.nodes
    if execution.quantization is not None:
        found["quantization"] = execution.quantization
    arguments = [word for name, value in found.items() for word in (f"--{name}", str(value))]
    if execution.max_loras:
        arguments += ["--enable-lora", "--max-loras", str(execution.max_loras)]
        arguments += ["--max-lora-rank", str(execution.max_lora_rank)]
        arguments += ["--lora-target-modules", *execution.lora_targets]
    if execution.eager:
        arguments.append("--enforce-eager")
    return tuple(arguments)


def vllm_environment(execution: ServeExecution) -> dict[str, str]:
    """The environment variables of vLLM that follow from the plan."""
    return {"VLLM_ENGINE_READY_TIMEOUT_S": str(execution.ready_timeout_s)}
