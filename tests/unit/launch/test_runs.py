"""The tasks of a run: what the plan puts into them."""

from thinktune.launch.runs import make_run, plan_recipe, plan_whole_run
from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.task import StageTask

CATALOG = load_catalog()


def without_plan(task: StageTask) -> StageTask:
    return task.model_copy(update={"planned_s": None})


def test_each_task_says_how_long_it_is_planned_for_which_decides_no_result() -> None:
    recipe = load_recipe("final-answer-written", catalog=CATALOG)
    plan = plan_whole_run(recipe, CATALOG, plan_recipe(recipe, CATALOG), None)
    tasks = make_run(recipe, CATALOG, "file:///s").tasks
    for stage in plan.stages:
        task = tasks[stage.stage]
        hours = stage.hours
        assert task.planned_s == (None if hours is None else round(3600 * hours))
        assert task.result_digest() == without_plan(task).result_digest()
    assert tasks["prep"].planned_s is None  # a batch service writes a column
    assert tasks["train"].planned_s and tasks["evaluate"].planned_s
