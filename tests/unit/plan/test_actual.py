"""What stages took, beside their plan."""

from typing import Any

import pytest
from planning import CATALOG, plan_of

from thinktune.plan.actual import attempt_seconds, stages_vs_actual
from thinktune.plan.run import RunPlan, plan_run
from thinktune.recipes.compose import load_recipe
from thinktune.schema.catalog import GIB
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import Stage


def manifest(kind: str, **changes: Any) -> Manifest:
    facts = {"attempt": "20261130T120000-abc123", "created": "2026-11-30T12:01:40+00:00"}
    entries: dict[str, Any] = {"files": (), "inputs": {}, "task_sha256": None}
    return Manifest(kind=kind, run="r", **{**entries, **facts, **changes})


def demo() -> RunPlan:
    recipe = load_recipe("demo", catalog=CATALOG)
    dataset, node = CATALOG.datasets["inventory-sums"], CATALOG.hardware["cpu"]
    model = CATALOG.models[recipe.model]
    training = plan_of(recipe, dataset)
    return plan_run(recipe, model, node, training, dataset=dataset, prep_limit_bytes=GIB)


def test_an_attempt_takes_from_its_name_to_its_commit() -> None:
    assert attempt_seconds(manifest("prep")) == 100
    later = manifest("prep", created="2026-11-30T14:00:10+02:00")
    assert attempt_seconds(later) == 10


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": "a"},
        {"created": "2026"},
        {"created": "today"},
        {"created": "2026-11-30T11:00:00+00:00"},
    ],
)
def test_times_that_cannot_be_read(changes: dict[str, str]) -> None:
    assert attempt_seconds(manifest("prep", **changes)) is None


def test_each_stage_that_finished_has_its_plan_beside_it() -> None:
    finished: dict[Stage, Manifest] = {
        "prep": manifest("prep", metrics={"rows": 1200}),
        "train": manifest("train"),
        "evaluate": manifest("evaluate", metrics={"questions": 120}),
    }
    plan = demo()
    pairs = {pair.what: pair for pair in stages_vs_actual(finished, plan)}
    assert list(pairs) == ["prep_s", "train_s", "evaluate_s", "rows", "questions"]
    hours = plan.stages[2].hours
    assert hours is not None
    assert pairs["evaluate_s"].planned == pytest.approx(3600 * hours)
    assert pairs["evaluate_s"].actual == 100
    assert (pairs["rows"].relative_error, pairs["questions"].relative_error) == (0, 0)


def test_without_a_recipe_the_plan_is_the_one_at_the_start() -> None:
    started = manifest("train", metrics={"planned_s": 80})
    (pair,) = stages_vs_actual({"train": started}, None)
    assert (pair.what, pair.planned, pair.actual) == ("train_s", 80, 100)
    (older,) = stages_vs_actual({"train": manifest("train")}, None)
    assert (older.planned, older.actual) == (None, 100)
