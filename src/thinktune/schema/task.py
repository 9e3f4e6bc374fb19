"""The task: the frozen JSON that a stage's container reads, mounted from a ConfigMap.

It contains everything that the stage needs. The environment adds only rank, topology and
credentials. The fields of each stage are in `thinktune.schema.stages`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from thinktune.schema.benchmark import BenchmarkSource
from thinktune.schema.catalog import Count, DatasetEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import AdapterSource
from thinktune.schema.recipe import Recipe

NOT_IN_DIGEST: dict[str, Any] = {"store": "", "code": None, "planned_s": None}
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
    test_sets: dict[str, DatasetEntry] = {}
    """Datasets of the catalog that the recipe compares training rows with, by name."""
    init_from: AdapterSource | None = None
    """The adapter of `train.init_from`, as it was when the run was made."""
    planned_s: dict[str, float] = {}
    """Seconds that the plan predicts, by stage."""
    benchmarks: dict[str, BenchmarkSource] = {}
    """The recipe's benchmarks that have a dataset, by name."""


class StageTask(Closed):
    """Fields that all tasks have."""

    run: str
    """Id of the run, with which its keys in the store start."""
    store: str
    """Address of the store: `file:///path` or `s3://bucket/prefix`."""
    code: str | None = None
    """`code_version()` of the launcher. A stage whose code differs refuses to start. Null accepts
    any code."""
    planned_s: Annotated[float, Field(ge=0)] | None = None
    """Seconds that the plan predicts for the stage, which the manifest records. Null where it
    predicts none."""
    model_name: str
    """Name of the model in the catalog."""
    model: ModelEntry

    @classmethod
    def of(cls, facts: RunFacts) -> Self:
        """The stage's task in that run."""
        planned_s = facts.planned_s.get(cls.model_fields["stage"].default)
        return cls(**cls.own_fields(facts), **_shared_fields(facts), planned_s=planned_s)

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

    def commits_beside(self) -> dict[str, str]:
        """Artifacts that the stage commits beside its own: task digests by their names in the
        run."""
        return {}

    def reads_beside(self) -> tuple[str, ...]:
        """Artifacts that it reads beside those of earlier stages, by their names in the run."""
        return ()


def _shared_fields(facts: RunFacts) -> dict[str, Any]:
    return {
        "run": facts.run,
        "store": facts.store,
        "code": facts.code,
        "model_name": facts.recipe.model,
        "model": facts.model,
    }
