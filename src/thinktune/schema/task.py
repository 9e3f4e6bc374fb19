"""The task: the frozen JSON that a stage's container reads, mounted from a ConfigMap.

It contains everything that the stage needs. The environment adds only rank, topology and
credentials.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.catalog import Count, DatasetEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.recipe import DataSpec, EvaluateSpec, TrainSpec

Stage = Literal["prep", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("prep", "train", "evaluate")
"""Stages in the order in which they run. Each reads the manifests of the stages before it."""


NOT_IN_DIGEST = {"store": "", "code": None}
"""Fields of a task that its result digest leaves out. Another version of the code can give another
result, but a run that its user has named continues all the same."""


class Execution(Closed):
    """How the plan decided to execute a training. It changes speed and memory, never the result."""

    num_processes: Count = 1
    """Number of ranks over all nodes: one per GPU, or 1 without GPUs."""
    micro_batch_tokens: Count = 4096
    """Largest number of tokens in one forward and backward pass on a rank. Longer examples are
    rejected."""
    recompute_layers: Annotated[int, Field(ge=0)] = 0
    """Number of layers whose activations are recomputed in the backward pass instead of kept."""
    recompute_mlps: Annotated[int, Field(ge=0)] = 0
    """Number of further layers of which only the gate and up projections are recomputed. They are
    most of what a layer keeps and half of its arithmetic. The plain path recomputes such layers
    entirely."""
    unpacked_layers: Annotated[int, Field(ge=0)] = 0
    """Number of last layers whose 4-bit weights are also kept in 16 bits, so that no pass unpacks
    them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage (arXiv:1910.02054)."""
    stall_s: Count = 1800
    """Seconds without progress after which a training ends itself, so that it is restarted."""


class Forecast(Closed):
    """What the plan predicts for a training. The manifest records it beside what was measured."""

    gpu_memory_bytes: Count
    """Predicted peak memory of one device, in bytes."""
    tokens_per_s: Annotated[float, Field(gt=0)]
    """Predicted tokens per second, summed over all ranks."""


class StageTask(Closed):
    """Fields that all tasks have."""

    run: str
    """Id of the run, with which its keys in the store start."""
    store: str
    """Address of the store: `file:///path` or `s3://bucket/prefix`."""
    code: str | None = None
    """`code_version()` of the launcher. A stage whose code differs refuses to start. Null accepts
    any code."""
    model_name: str
    """Name of the model in the catalog."""
    model: ModelEntry

    def result_digest(self) -> str:
        """Digest of what decides the result, without where it is stored and how it is executed.

        A manifest contains it, and a finished stage is recognized by it.
        """
        return self.model_copy(update=NOT_IN_DIGEST).digest()


class PrepTask(StageTask):
    """Prepare: fetch the model and the dataset, render the text, tokenize and split it."""

    stage: Literal["prep"] = "prep"
    dataset: DatasetEntry
    data: DataSpec
    source_sha256: str | None = None
    """Digest of the user's own file at submission. Prep rejects a file with another digest."""

    def result_digest(self) -> str:
        """As for every task. The user's file is identified by its content, not by its path."""
        data = self.data.model_copy(update={"path": None}) if self.source_sha256 else self.data
        return self.model_copy(update=NOT_IN_DIGEST | {"data": data}).digest()


class TrainTask(StageTask):
    """Train: fine-tune the model on the artifact of prep."""

    stage: Literal["train"] = "train"
    train: TrainSpec
    execution: Execution = Execution()
    forecast: Forecast | None = None
    """What the plan predicts. Null where it predicts nothing."""

    def result_digest(self) -> str:
        """As for every task. A training can resume on another topology, so execution is left
        out."""
        neutral = {"execution": Execution(), "forecast": None}
        return self.model_copy(update=NOT_IN_DIGEST | neutral).digest()


class EvaluateTask(StageTask):
    """Evaluate: ask the base model and the tuned model the held-out questions."""

    stage: Literal["evaluate"] = "evaluate"
    evaluate: EvaluateSpec
    final_answer: str | None
    """Marker of the line that contains the answer to check. Null expects no such line."""
    base: Literal["nf4", "16bit"]
    """Precision of the base model under the adapter, which is the one it was trained on."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type in which answers are computed, which is the one of the training."""


TASKS: dict[Stage, type[StageTask]] = {
    "prep": PrepTask,
    "train": TrainTask,
    "evaluate": EvaluateTask,
}
