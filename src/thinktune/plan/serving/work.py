"""The facts of a server that decide its memory.

Called by `memory` and `activations`.
"""

from dataclasses import dataclass

from thinktune.plan.serving.division import Part, parts
from thinktune.schema.catalog import HardwareEntry, ModelEntry
from thinktune.schema.serving import KvDtype, Precision

ELEMENT_BYTES = 2
OLD_RUNNER = frozenset({"deepseek_v3"})
"""Architectures that vLLM still runs with its first model runner (_is_default_v2_model_runner_model
in config/vllm.py); its sampler computes in float32."""


@dataclass(frozen=True)
class ServeWork:
    """The facts that decide how much memory a server takes."""

    model: ModelEntry
    hardware: HardwareEntry
    precision: Precision
    window: int
    """Longest prompt with its answer, in tokens."""
    sequences: int
    """Requests computed at once."""
    batched_tokens: int
    """Tokens computed in one step."""
    adapters: int
    rank: int
    """As `lora_rank_setting` rounds it."""
    targets: tuple[str, ...]
    kv_dtype: KvDtype
    tensor: int
    pipeline: int
    graphs: bool
    share: float | None = None
    """gpu_memory_utilization; None takes what leaves room for `outside_bytes`."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What GPUs of the pipeline stages have, each kind once."""
        return parts(self.model, self.pipeline)
