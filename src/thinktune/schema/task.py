"""The task: the frozen JSON that a stage's container gets, mounted from a ConfigMap.

It holds everything the stage needs; the environment adds rank, topology and credentials only.
What each stage gets besides is in `thinktune.schema.stages`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from thinktune.schema.catalog import Count, DatasetEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.recipe import Recipe

NOT_IN_DIGEST: dict[str, Any] = {"store": "", "code": None}
"""Values that replace the fields of a task that do not decide its result. Different code may give a
different result; a run that its user has named continues all the same."""


class Execution(Closed):
    """How the plan decided to run a training: changes speed and memory, never the result."""

    num_processes: Count = 1
    """Ranks over all nodes: one per GPU, or 1 without a GPU."""
    micro_batch_tokens: Count = 4096
    """Most tokens that one forward and backward pass takes on a rank; longer examples are
    refused."""
    recompute_layers: Annotated[int, Field(ge=0)] = 0
    """Layers whose activations are computed again in the backward pass instead of kept."""
    recompute_mlps: Annotated[int, Field(ge=0)] = 0
    """Layers after these of which only gate and up are computed again: most of what a layer keeps
    for half of its arithmetic. The plain path recomputes such layers whole."""
    unpacked_layers: Annotated[int, Field(ge=0)] = 0
    """Last layers whose 4-bit weights are also kept in 16 bits, so that no pass unpacks them."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage (arXiv:1910.02054)."""
    stall_s: Count = 1800
    """Seconds without progress after which a training ends itself, to be started again."""


class Forecast(Closed):
    """What the plan expects of a training; its manifest records both."""

    gpu_memory_bytes: Count
    """Peak memory of one device, all causes included."""
    tokens_per_s: Annotated[float, Field(gt=0)]
    """Tokens per second over all ranks."""


class RunFacts(Closed):
    """All that the tasks of a run are made from: the recipe with its catalog entries and plan."""

    run: str
    """Id of the run; keys in the store start with it."""
    store: str
    """Where artifacts are: `file:///path` or `s3://bucket/prefix`."""
    code: str | None
    """Version of the code that makes the tasks."""
    recipe: Recipe
    model: ModelEntry
    dataset: DatasetEntry
    execution: Execution = Execution()
    forecast: Forecast | None = None
    source_sha256: str | None = None
    """Digest of the user's own file, where the recipe names one."""


class StageTask(Closed):
    """What the tasks of all stages have in common."""

    run: str
    """Id of the run; keys in the store start with it."""
    store: str
    """Where artifacts are: `file:///path` or `s3://bucket/prefix`."""
    code: str | None = None
    """`code_version()` of whoever made the task, which the stage must have as well; null: any
    version will do."""
    model_name: str
    """Name of the model in the catalog."""
    model: ModelEntry

    @classmethod
    def of(cls, facts: RunFacts) -> Self:
        """The stage's task in that run."""
        return cls(**cls.own_fields(facts), **_shared_fields(facts))

    @classmethod
    def own_fields(cls, facts: RunFacts) -> dict[str, Any]:
        """The fields that this stage has besides those of every task."""
        del facts
        return {}

    def result_digest(self) -> str:
        """Digest of what decides the result: neither where it is stored nor how the plan runs it.

        Manifests hold it, and a finished stage is known by it.
        """
        return self.model_copy(update=NOT_IN_DIGEST).digest()


def _shared_fields(facts: RunFacts) -> dict[str, Any]:
    return {
        "run": facts.run,
        "store": facts.store,
        "code": facts.code,
        "model_name": facts.recipe.model,
        "model": facts.model,
    }
