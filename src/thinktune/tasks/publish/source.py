"""The run that is published: its manifests, what they were made by, and whether it may go.

Called by `__main__`. What serving checks before it loads a run is checked here before one is handed
on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import stage_prefix, task_key
from thinktune.schema.manifest import Manifest
from thinktune.schema.promotion import check_promoted
from thinktune.schema.prompt import PromptTemplate
from thinktune.schema.recipe import BasePrecision
from thinktune.schema.report import Report
from thinktune.schema.stages import PrepTask, TrainTask
from thinktune.schema.task import StageTask
from thinktune.store import ObjectMissing, Store, fetch, manifest_digest, read_manifest
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.tasks.runtime.trained import (
    Dtype,
    Sampling,
    check_base,
    check_template,
    judged_sampling,
    trained_precision,
)

REPORT_FILE = "report.json"
Task = TypeVar("Task", bound=StageTask)


@dataclass(frozen=True)
class Source:
    """A run that may be published."""

    run: str
    store: Store
    template: PromptTemplate
    stop_ids: tuple[int, ...]
    prep: Manifest
    train: Manifest
    base: BasePrecision
    """Precision of the base model that the adapter was trained on."""
    dtype: Dtype
    """Type of the training, as the recipe names it."""
    sampling: Sampling
    judged: str
    """What the evaluation says."""
    promoted: bool
    """Whether the evaluation has nothing against the run."""
    report: Report | None
    """The evaluation of this very adapter, where there is one."""
    prep_task: PrepTask | None
    """What prep was told; None where the store no longer says it."""
    train_task: TrainTask | None

    @property
    def repo(self) -> str:
        """`owner/name` of the base model."""
        return self.template.model.repo

    @property
    def revision(self) -> str:
        """Revision of the base model."""
        return self.prep.revisions["model"]

    @property
    def hub_revision(self) -> str | None:
        """The same, as the hub knows it; None for a base model that came in a Python package."""
        return None if self.template.model.packaged is not None else self.revision


def read_source(store: Store, run: str, folder: Path, *, unpromoted: bool) -> Source:
    """Checks the run; `folder` is for small files of its artifacts. Raises InputMissing where an
    artifact is missing or is not what another was made from, SpecInvalid where the evaluation did
    not promote the run and nobody asked to publish it all the same."""
    prep, train = stage_manifest(store, run, "prep"), stage_manifest(store, run, "train")
    evaluation = read_manifest(store, stage_prefix(run, "evaluate"))
    digest = manifest_digest(train)
    judged = check_promoted(run, digest, evaluation, unpromoted=unpromoted)
    facts = prompt_facts(store, run, prep, folder / "prep")
    if facts.template is None:
        fault = "an earlier version prepared it, and it does not say how its prompts are rendered"
        raise InputMissing(f"run {run}", fault, "run its recipe again under a new name")
    check_template(run, facts.template, prep, train)
    base, dtype = trained_precision(run, train.metrics)
    check_base(store, facts.template.model.repo, prep.revisions["model"], train)
    if evaluation is not None and evaluation.inputs.get("train") != digest:
        evaluation = None
    return Source(
        run=run,
        store=store,
        template=facts.template,
        stop_ids=facts.stop_ids,
        prep=prep,
        train=train,
        base=base,
        dtype=dtype,
        sampling=judged_sampling(evaluation),
        judged=judged,
        promoted=evaluation is not None and evaluation.metrics.get("promoted") is not False,
        report=_report(store, run, evaluation, folder / "evaluate"),
        prep_task=_task(store, run, PrepTask, prep),
        train_task=_task(store, run, TrainTask, train),
    )


def _report(store: Store, run: str, evaluation: Manifest | None, folder: Path) -> Report | None:
    if evaluation is None or REPORT_FILE not in {entry.name for entry in evaluation.files}:
        return None
    prefix = stage_prefix(run, "evaluate")
    path = fetch(store, prefix, evaluation, folder, names=[REPORT_FILE]) / REPORT_FILE
    place = store.location(prefix)
    try:
        return Report.parse(json.loads(path.read_text(encoding="utf-8")), place)
    except (SpecInvalid, ValueError):
        fault = f"its {REPORT_FILE} is of another version of thinktune"
        raise InputMissing(place, fault, "evaluate the run again") from None


def _task(store: Store, run: str, kind: type[Task], made: Manifest) -> Task | None:
    """What a stage was told, if that is what its artifact was made by."""
    key = task_key(run, kind.model_fields["stage"].default)
    try:
        task = kind.parse(json.loads(store.get(key)), store.location(key))
    except (ObjectMissing, ValueError, SpecInvalid):
        return None
    return task if task.result_digest() == made.task_sha256 else None
