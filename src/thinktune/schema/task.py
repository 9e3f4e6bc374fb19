"""The task: the frozen JSON that a stage's container gets, mounted from a ConfigMap.

It holds everything the stage needs; the environment adds rank, topology and credentials only.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.catalog import Count, DatasetEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.recipe import DataSpec, EvaluateSpec, TrainSpec

Stage = Literal["prep", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("prep", "train", "evaluate")
"""In the order in which they run; each reads the manifests of those before it."""


NOT_IN_DIGEST = {"store": "", "code": None}
"""Of a task, what says nothing about its result. Another code may make another one; a run that is
named by its user goes on all the same."""


class Execution(Closed):
    """How the plan decided to run a training: changes speed and memory, never the result."""

    num_processes: Count = 1
    """Ranks over all nodes: one per GPU, or 1 without."""
    micro_batch_tokens: Count = 4096
    """Tokens that one forward and backward pass takes on a rank, at most; longer examples are
    refused."""
    recompute_layers: Annotated[int, Field(ge=0)] = 0
    """Layers whose activations are computed again in the backward pass instead of kept."""
    recompute_mlps: Annotated[int, Field(ge=0)] = 0
    """Layers after these of which only gate and up are computed again: most of what a layer keeps
    for half of its arithmetic. The plain path recomputes such layers whole."""
    unpacked_layers: Annotated[int, Field(ge=0)] = 0
    """Last layers whose 4-bit weights also stand in 16 bits, so that no pass unpacks them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage (arXiv:1910.02054)."""
    stall_s: Count = 1800
    """Seconds without progress after which a training ends itself, to be started again."""


class Forecast(Closed):
    """What the plan says of a training, for its manifest to be held against."""

    gpu_memory_bytes: Count
    """On one device at the peak, of all causes."""
    tokens_per_s: Annotated[float, Field(gt=0)]
    """Over all ranks."""


class StageTask(Closed):
    """What all tasks have."""

    run: str
    """Id of the run; keys in the store start with it."""
    store: str
    """Where artifacts are: `file:///path` or `s3://bucket/prefix`."""
    code: str | None = None
    """`code_version()` of who made it, which a stage must have as well; null: any will do."""
    model_name: str
    """Name in the catalog."""
    model: ModelEntry

    def result_digest(self) -> str:
        """Digest of what decides the result: neither where it is stored nor how the plan runs it.

        Manifests hold it, and a finished stage is known by it.
        """
        return self.model_copy(update=NOT_IN_DIGEST).digest()


class PrepTask(StageTask):
    """Fetch the model and the dataset, render, tokenize, split."""

    stage: Literal["prep"] = "prep"
    dataset: DatasetEntry
    data: DataSpec
    source_sha256: str | None = None
    """Digest of the user's own file at submission; prep refuses another."""

    def result_digest(self) -> str:
        """As for every task; the user's file is known by its content, wherever it lies."""
        data = self.data.model_copy(update={"path": None}) if self.source_sha256 else self.data
        return self.model_copy(update=NOT_IN_DIGEST | {"data": data}).digest()


class TrainTask(StageTask):
    """Fine-tune on prep's artifact."""

    stage: Literal["train"] = "train"
    train: TrainSpec
    execution: Execution = Execution()
    forecast: Forecast | None = None

    def result_digest(self) -> str:
        """As for every task; a training may resume on another topology."""
        neutral = {"execution": Execution(), "forecast": None}
        return self.model_copy(update=NOT_IN_DIGEST | neutral).digest()


class EvaluateTask(StageTask):
    """Ask base and tuned the held-out questions."""

    stage: Literal["evaluate"] = "evaluate"
    evaluate: EvaluateSpec
    final_answer: str | None
    """Marker of the line that holds the checkable answer; null: none is asked for."""
    base: Literal["nf4", "16bit"]
    """Precision of the base model under the adapter: the one it was trained on."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"


TASKS: dict[Stage, type[StageTask]] = {
    "prep": PrepTask,
    "train": TrainTask,
    "evaluate": EvaluateTask,
}
