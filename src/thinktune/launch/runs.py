"""The tasks of a run, made from recipe, catalog and plan, and the run's id.

The same recipe, catalog entries, file and code give the same run, which resumes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import thinktune
from thinktune.launch.cluster.charts import release_name
from thinktune.launch.values import conductor_values, task_values
from thinktune.plan.prep import pod_memory
from thinktune.plan.run import RunPlan, plan_run
from thinktune.plan.training.comparison import OnHardware, on_all_hardware
from thinktune.plan.training.plan import Plan, make_plan
from thinktune.recipes.code_version import code_version
from thinktune.recipes.compose import OWN_FILE, Catalog
from thinktune.schema.benchmark import BenchmarkSource
from thinktune.schema.catalog import DatasetEntry, HardwareEntry, ModelEntry
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.schema.fused import FUSED_KINDS
from thinktune.schema.keys import source_key
from thinktune.schema.manifest import AdapterSource
from thinktune.schema.pipeline import Pipeline, PipelineStage
from thinktune.schema.recipe import Recipe
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage, up_to
from thinktune.schema.task import Forecast, RunFacts, StageTask
from thinktune.schema.values import ConductorValues, TaskValues
from thinktune.store import Store
from thinktune.store.adapters import check_adapter, find_adapter
from thinktune.store.data_files import data_digest, data_files, is_remote


@dataclass(frozen=True)
class OwnFile:
    """The user's own data, on this machine."""

    path: Path
    sha256: str
    several: bool = False
    """Whether `path` is a folder or a pattern."""

    @property
    def key(self) -> str:
        """Where prep finds it in a store that others reach."""
        return source_key(self.sha256, self.path.name)


@dataclass(frozen=True)
class Run:
    """One execution of a recipe: its id, its plan, its tasks."""

    id: str
    hardware: str
    """Name in the catalog."""
    node: HardwareEntry
    plan: Plan
    tasks: dict[Stage, StageTask]
    own_file: OwnFile | None
    adapter: AdapterSource | None = None
    """The adapter that the training starts from."""


def plan_recipe(recipe: Recipe, catalog: Catalog) -> Plan:
    """The plan of a recipe whose names are known to be in the catalog."""
    return make_plan(
        recipe,
        catalog.models[recipe.model],
        catalog.hardware[recipe.hardware],
        catalog.hardware,
        dataset=catalog.datasets.get(recipe.data.dataset),
    )


def plan_whole_run(
    recipe: Recipe, catalog: Catalog, training: Plan, cluster: Cluster | None
) -> RunPlan:
    """The plan of all stages around the planned training, with the prices of the cluster file."""
    hardware = catalog.hardware[recipe.hardware]
    return plan_run(
        recipe,
        catalog.models[recipe.model],
        hardware,
        training,
        dataset=catalog.datasets.get(recipe.data.dataset),
        prep_limit_bytes=pod_memory(cluster.prep.memory_gib if cluster else None, hardware),
        prices=cluster.prices if cluster else None,
        benchmark_questions=_benchmark_questions(recipe, catalog),
    )


def _benchmark_questions(recipe: Recipe, catalog: Catalog) -> int:
    """Questions of the recipe's benchmarks that are asked beside the held-out ones."""
    found = 0
    for spec in recipe.evaluate.benchmarks.values():
        entry = catalog.datasets.get(spec.dataset) if spec.dataset is not None else None
        rows = entry.rows if entry is not None else None
        found += min(spec.questions or rows or 0, rows or spec.questions or 0)
    return found if recipe.data.split.test_rows else 0


def compare_hardware(recipe: Recipe, catalog: Catalog) -> tuple[OnHardware, ...]:
    """The recipe on every node that it fits."""
    model, dataset = catalog.models[recipe.model], catalog.datasets.get(recipe.data.dataset)
    return on_all_hardware(recipe, model, catalog.hardware, dataset)


def make_run(
    recipe: Recipe,
    catalog: Catalog,
    store: str,
    name: str | None = None,
    *,
    until: Stage = STAGES[-1],
    adapter: AdapterSource | None = None,
) -> Run:
    """Tasks of all stages, of which those up to `until` are to be run.

    `adapter` is `adapter_of` the recipe, which a run that trains needs where there is one. Raises
    SpecInvalid where the plan does not fit or nothing is held out for an evaluation that is asked
    for, DataInvalid where the user's file cannot be read.
    """
    assert adapter is not None or recipe.train.init_from is None or until == "prep"
    if "evaluate" in up_to(until) and recipe.data.split.test_rows == 0:
        fault = "data.split.test_rows is 0, which leaves no question to evaluate with"
        remedy = (
            "add --set data.split.test_rows=100, or stop before that (--until train, --stage train)"
        )
        raise SpecInvalid(f"recipe {recipe.name}", fault, remedy)
    own = _own_file(recipe)
    plan = _fitting(recipe, catalog)
    run = name or run_id(recipe, catalog, own.sha256 if own else None, adapter)
    if run == recipe.train.init_from:
        fault = "a run cannot start from its own adapter"
        raise SpecInvalid("train.init_from", fault, "name another run, or another --run")
    tasks = _tasks(recipe, catalog, plan, run=run, store=store, own=own, adapter=adapter)
    return Run(run, recipe.hardware, catalog.hardware[recipe.hardware], plan, tasks, own, adapter)


def adapter_of(recipe: Recipe, catalog: Catalog, store: Store) -> AdapterSource | None:
    """The adapter that the recipe's training starts from, as it is in the store now; None where it
    names none. Raises InputMissing where it is not there, SpecInvalid where it does not fit."""
    if recipe.train.init_from is None:
        return None
    found = find_adapter(store, recipe.train.init_from)
    model = _model(recipe, catalog)
    revision = model.packaged.revision if model.packaged is not None else model.revision
    check_adapter(found, recipe.train, model, revision)
    return found.source


def on_hardware(run: Run, recipe: Recipe, catalog: Catalog, hardware: str) -> Run:
    """The run planned for other hardware, its tasks as they are: to ask whether it would be taken.

    Raises SpecInvalid where it does not fit.
    """
    plan = _fitting(recipe.model_copy(update={"hardware": hardware}), catalog)
    return replace(run, hardware=hardware, node=catalog.hardware[hardware], plan=plan)


def stage_values(run: Run, stage: Stage, cluster: Cluster, *, wait: bool = False) -> TaskValues:
    """Chart values of one stage; with `wait`, of one that starts when it is told to."""
    version = thinktune.__version__
    return task_values(
        run.tasks[stage], stage, run.plan, run.hardware, run.node, cluster, version, wait=wait
    )


def pipeline_of(run: Run, stages: Sequence[Stage], cluster: Cluster) -> Pipeline:
    """What is to be started in which order."""
    each = (
        PipelineStage(
            stage=stage,
            release=release_name(run.id, stage),
            task_sha256=run.tasks[stage].result_digest(),
            beside=tuple(run.tasks[stage].commits_beside()),
        )
        for stage in stages
    )
    namespace = cluster.namespace
    return Pipeline(run=run.id, store=cluster.store, namespace=namespace, stages=tuple(each))


def conductor_of(pipeline: Pipeline, cluster: Cluster) -> ConductorValues:
    """Chart values of the conductor."""
    return conductor_values(pipeline, cluster, thinktune.__version__)


def _fitting(recipe: Recipe, catalog: Catalog) -> Plan:
    plan = plan_recipe(recipe, catalog)
    if not plan.fits:
        changes = [f"--set {' --set '.join(a.change.split())}" for a in plan.alternatives]
        remedy = f"would fit: {', or '.join(changes)}" if changes else "choose a smaller model"
        raise SpecInvalid(f"recipe {recipe.name}", plan.reason, remedy)
    architecture = catalog.models[recipe.model].architecture
    if plan.topology.zero_stage == 3 and architecture not in FUSED_KINDS:
        fault = f"it fits only divided among ranks, which is not built for {architecture}"
        raise SpecInvalid(f"recipe {recipe.name}", fault, "choose a dense model")
    return plan


def _tasks(
    recipe: Recipe,
    catalog: Catalog,
    plan: Plan,
    *,
    run: str,
    store: str,
    own: OwnFile | None,
    adapter: AdapterSource | None,
) -> dict[Stage, StageTask]:
    if own is not None:
        # Where it lies here means nothing to others, and would make the same run's files differ.
        path = str(own.path) if store.startswith("file:") else own.path.name
        data = recipe.data.model_copy(update={"path": path})
        recipe = recipe.model_copy(update={"data": data})
    facts = RunFacts(
        run=run,
        store=store,
        code=code_version(),
        recipe=recipe,
        model=_model(recipe, catalog),
        dataset=_dataset(recipe, catalog),
        execution=plan.execution,
        forecast=_forecast(plan),
        planned_s=_planned_s(recipe, catalog, plan),
        source_sha256=own.sha256 if own else None,
        test_sets={
            name: catalog.datasets[name]
            for name in recipe.data.test_sets
            if name in catalog.datasets
        },
        init_from=adapter,
        benchmarks={
            name: BenchmarkSource(spec=spec, entry=catalog.datasets[spec.dataset])
            for name, spec in recipe.evaluate.benchmarks.items()
            if spec.dataset is not None
        },
    )
    return {stage: STAGE_INFO[stage].task.of(facts) for stage in STAGES}


def _forecast(plan: Plan) -> Forecast | None:
    if plan.tokens_per_s is None:
        return None
    return Forecast(gpu_memory_bytes=plan.gpu_total_bytes, tokens_per_s=plan.tokens_per_s)


def _planned_s(recipe: Recipe, catalog: Catalog, plan: Plan) -> dict[str, float]:
    stages = plan_whole_run(recipe, catalog, plan, None).stages
    # Whole seconds: nothing in the plan is more exact.
    return {each.stage: round(3600 * each.hours) for each in stages if each.hours is not None}


def run_id(
    recipe: Recipe, catalog: Catalog, source: str | None, adapter: AdapterSource | None
) -> str:
    """Recipe name + 8 hex of the digest of all that decides the result.

    `source` is the digest of the user's own file, which stands for it wherever it lies; `adapter`
    the one that the training starts from.
    """
    recipe = recipe.model_copy(update={"description": ""})  # prose decides nothing
    if source is not None:
        data = recipe.data.model_copy(update={"path": None})
        recipe = recipe.model_copy(update={"data": data})
    parts = [
        recipe.canonical(),
        _model(recipe, catalog).canonical(),
        _dataset(recipe, catalog).model_copy(update={"description": ""}).canonical(),
        source or "",
        code_version(),
        *([adapter.sha256] if adapter is not None else []),
    ]
    return f"{recipe.name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"


def _own_file(recipe: Recipe) -> OwnFile | None:
    if recipe.data.path is None or is_remote(recipe.data.path):
        return None
    path = Path(recipe.data.path).resolve()
    try:
        files = data_files(str(path))
        return OwnFile(path, data_digest(files), several=len(files) > 1 or files[0] != path)
    except OSError as error:
        fault = (
            f"recipe {recipe.name} learns from this file, which cannot be read ({error.strerror})"
        )
        raise DataInvalid(str(path), fault, "name yours: --set data.path=…") from None


def _model(recipe: Recipe, catalog: Catalog) -> ModelEntry:
    entry = catalog.models[recipe.model]
    return entry.model_copy(update={"revision": recipe.revision or entry.revision})


def _dataset(recipe: Recipe, catalog: Catalog) -> DatasetEntry:
    if recipe.data.dataset != OWN_FILE:
        entry = catalog.datasets[recipe.data.dataset]
        return entry.model_copy(update={"revision": recipe.data.revision or entry.revision})
    return DatasetEntry(
        license="the user's own",
        format=recipe.data.format or "columns",
        description="a file of the user's own",
    )
