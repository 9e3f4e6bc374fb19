"""The stages of a run: the one table that plan, charts' values, launcher, doctor and command line
read.

A stage is one container: `python -m <module> --task FILE`. Adding one means a row here with the
task that it gets, its package, its settings in the recipe if it has any, and its page in docs/.
"""

from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field

from thinktune.schema.benchmark import BenchmarkSource, absent_if_empty
from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.closed import added
from thinktune.schema.data import DataSpec
from thinktune.schema.manifest import AdapterSource
from thinktune.schema.recipe import EvaluateSpec, TrainSpec
from thinktune.schema.task import NOT_IN_DIGEST, Execution, Forecast, RunFacts, StageTask

Stage = Literal["prep", "train", "evaluate"]
BENCHMARKS = "benchmarks"
"""Folder of a run that holds the artifacts of its benchmarks."""


class PrepTask(StageTask):
    """Prepare: fetch the model and the dataset, render the text, tokenize and split it."""

    stage: Literal["prep"] = "prep"
    dataset: DatasetEntry
    data: DataSpec
    source_sha256: str | None = None
    """Digest of the user's own file at submission. Prep rejects a file with another digest."""
    test_sets: dict[str, DatasetEntry] = {}
    """Datasets of the catalog that training rows are compared with, by name."""
    benchmarks: Annotated[dict[str, BenchmarkSource], Field(exclude_if=absent_if_empty)] = {}
    """Benchmarks whose questions it renders, each into an artifact beside its own."""

    @classmethod
    def own_fields(cls, facts: RunFacts) -> dict[str, Any]:
        """As `StageTask.own_fields`: the fields that prep alone has."""
        return {
            "dataset": facts.dataset,
            "data": facts.recipe.data,
            "source_sha256": facts.source_sha256,
            "test_sets": facts.test_sets,
            "benchmarks": facts.benchmarks,
        }

    def result_digest(self) -> str:
        """As `StageTask.result_digest`. The user's file is identified by its content, not by its
        path, and the dataset's description decides nothing. Benchmarks are artifacts of their own,
        so that a run which gains one keeps its adapter."""
        data = self.data.model_copy(update={"path": None}) if self.source_sha256 else self.data
        dataset = self.dataset.model_copy(update={"description": ""})
        neutral = {"data": data, "dataset": dataset, "benchmarks": {}}
        return self.model_copy(update=NOT_IN_DIGEST | neutral).digest()

    def commits_beside(self) -> dict[str, str]:
        """As `StageTask.commits_beside`: the benchmarks."""
        own = self.result_digest()
        return {f"{BENCHMARKS}/{n}": of.made_by(own) for n, of in self.benchmarks.items()}


class TrainTask(StageTask):
    """Train: fine-tune the model on the artifact of prep."""

    stage: Literal["train"] = "train"
    train: TrainSpec
    execution: Execution = Execution()
    forecast: Forecast | None = None
    """What the plan predicts. Null where it predicts nothing."""
    init_from: AdapterSource | None = added(None)
    """The adapter that `train.init_from` names. The stage rejects another one."""

    @classmethod
    def own_fields(cls, facts: RunFacts) -> dict[str, Any]:
        """As `StageTask.own_fields`: the fields that train alone has."""
        return {
            "train": facts.recipe.train,
            "execution": facts.execution,
            "forecast": facts.forecast,
            "init_from": facts.init_from,
        }

    def result_digest(self) -> str:
        """As `StageTask.result_digest`. A training can resume on another topology, so execution is
        left out."""
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
    benchmarks: Annotated[dict[str, BenchmarkSource], Field(exclude_if=absent_if_empty)] = {}
    """The benchmarks that prep renders for this run."""

    @classmethod
    def own_fields(cls, facts: RunFacts) -> dict[str, Any]:
        """As `StageTask.own_fields`: the fields that evaluate alone has."""
        recipe = facts.recipe
        return {
            "evaluate": recipe.evaluate,
            "final_answer": recipe.data.final_answer,
            "base": recipe.train.base,
            "dtype": recipe.train.dtype,
            "benchmarks": facts.benchmarks,
        }

    def result_digest(self) -> str:
        """As `StageTask.result_digest`: how many pods divide the questions decides nothing."""
        neutral = {"evaluate": self.evaluate.model_copy(update={"shards": 1})}
        return self.model_copy(update=NOT_IN_DIGEST | neutral).digest()

    def reads_beside(self) -> tuple[str, ...]:
        """As `StageTask.reads_beside`: the benchmarks."""
        return tuple(f"{BENCHMARKS}/{name}" for name in self.benchmarks)


class StageInfo(NamedTuple):
    """One row of the table."""

    name: Stage
    task: type[StageTask]
    """Class of the task file that its container gets."""
    module: str
    """Its package: `python -m <module>` runs it, `<module>.stage` has its `run`."""
    inputs: tuple[Stage, ...]
    """Stages whose artifacts it reads, in the order in which they run."""
    image: str
    """Name of its image, below the registry."""
    gpus: Literal["none", "one", "all"]
    """What it takes of a node's GPUs. `all` is a process per GPU over the nodes that the recipe
    asks for, sized and timed by the training plan."""
    network: Literal["store", "hub"]
    """How far its pod may reach: the store alone, or the model hub as well. A stage without the hub
    runs with the hub's client offline."""
    kind: Literal["job", "service"]
    """A job ends with an artifact in the store; a service is never done."""


_TABLE = (
    StageInfo("prep", PrepTask, "thinktune.tasks.prep", (), "prep", "none", "hub", "job"),
    StageInfo(
        "train", TrainTask, "thinktune.tasks.train", ("prep",), "train", "all", "store", "job"
    ),
    StageInfo(
        "evaluate",
        EvaluateTask,
        "thinktune.tasks.evaluate",
        ("prep", "train"),
        "evaluate",
        "one",
        "store",
        "job",
    ),
)

STAGE_INFO: dict[Stage, StageInfo] = {info.name: info for info in _TABLE}
STAGES: tuple[Stage, ...] = tuple(info.name for info in _TABLE if info.kind == "job")
"""Stages that commit an artifact, in the order in which they run."""
assert set(STAGE_INFO) == set(get_args(Stage)), "Stage and the table name other stages"
IMAGES: tuple[str, ...] = tuple(dict.fromkeys(info.image for info in _TABLE))
"""Names of all images. Stages can share one."""


def earlier(stage: Stage) -> tuple[Stage, ...]:
    """All stages that a stage depends on, directly or through others, in the order in which they
    run."""
    needed = set(STAGE_INFO[stage].inputs)
    for name in STAGE_INFO[stage].inputs:
        needed.update(earlier(name))
    return tuple(name for name in STAGES if name in needed)


def up_to(until: Stage) -> tuple[Stage, ...]:
    """The stages of a run that stops after `until`: that one and all that it depends on. A run that
    goes on to the last stage of the table leaves none out."""
    return STAGES if until == STAGES[-1] else (*earlier(until), until)
