"""The plan of a whole run: stages, preparation, language models, money."""

from typing import Any

import pytest
from planning import CATALOG, a_recipe, plan_of

from thinktune.plan.language_model import REPLY_S
from thinktune.plan.prep import plan_prep, pod_memory, prep_memory
from thinktune.plan.run import RunPlan, plan_run
from thinktune.recipes.compose import load_recipe, recipe_names
from thinktune.schema.catalog import GIB
from thinktune.schema.prices import HourlyPrices
from thinktune.schema.recipe import Recipe
from thinktune.tasks.prep.inventory_sums import ROWS

MIB = 1024**2
MODEL = "r1-distill-qwen-1.5b"
LLM = {
    "provider": "openai",
    "model": "gpt-5-mini",
    "parameters": {"max_tokens": 2000},
    "prices": {"input_per_million": 0.25, "output_per_million": 2.0},
    "budget": {"money": 20},
}


def planned(recipe: Recipe, prices: HourlyPrices | None = None) -> RunPlan:
    hardware = CATALOG.hardware[recipe.hardware]
    return plan_run(
        recipe,
        CATALOG.models[recipe.model],
        hardware,
        plan_of(recipe, CATALOG.datasets.get(recipe.data.dataset)),
        dataset=CATALOG.datasets.get(recipe.data.dataset),
        prep_limit_bytes=pod_memory(None, hardware),
        prices=prices,
    )


def a_run(hardware: str, **changes: Any) -> Recipe:
    data = {"dataset": "medical-o1-en", "split": {"test_rows": 200}, **changes.pop("data", {})}
    return a_recipe(MODEL, hardware, data=data, **changes)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_has_a_plan_of_all_stages(name: str) -> None:
    recipe = load_recipe(name, catalog=CATALOG)
    run = planned(recipe)
    assert [stage.stage for stage in run.stages] == ["prep", "train", "evaluate"]
    assert run.fits
    prep, train, evaluate = run.stages
    assert train.hours is None or train.hours > 0
    assert evaluate.hours is not None and evaluate.most_hours is not None
    assert 0 < evaluate.hours <= evaluate.most_hours
    assert prep.gpus == 0 and evaluate.gpus in (0, recipe.evaluate.shards)


def test_sums_are_those_of_the_stages() -> None:
    run = planned(a_run("l4x4", nodes=2))
    prep, train, evaluate = run.stages
    assert prep.hours and train.hours and evaluate.hours and evaluate.most_hours
    assert (train.gpus, train.nodes, evaluate.gpus, evaluate.nodes) == (8, 2, 1, 1)
    assert run.hours == pytest.approx(prep.hours + train.hours + evaluate.hours)
    assert run.gpu_hours == pytest.approx(8 * train.hours + evaluate.hours)
    assert run.most_gpu_hours == pytest.approx(8 * train.hours + evaluate.most_hours)
    assert (run.currency, run.money) == (None, None)
    assert run.left_out[-1].startswith("waiting for nodes")


def test_training_in_the_run_takes_its_own_plan_and_the_start() -> None:
    recipe = a_run("l4x1")
    alone = plan_of(recipe, CATALOG.datasets["medical-o1-en"])
    train = planned(recipe).stages[1]
    released = 2 * 1_777_088_000
    assert alone.hours and train.hours
    start_s = released / 200e6 + released / 1.3e9
    assert train.hours == pytest.approx(alone.hours + start_s / 3600)
    assert train.memory_bytes == alone.gpu_total_bytes


def test_money_by_hand() -> None:
    """A node's price counts for the whole node, a GPU's for each GPU."""
    recipe = a_run("l4x4", nodes=2)
    by_node = HourlyPrices(currency="EUR", node_hour={"l4x4": 5.0}, cpu_node_hour=0.5)
    run = planned(recipe, by_node)
    prep, train, evaluate = run.stages
    assert prep.hours and train.hours and evaluate.hours and evaluate.most_hours
    assert prep.money == pytest.approx(0.5 * prep.hours)
    assert train.money == pytest.approx(2 * 5.0 * train.hours)
    assert evaluate.money == pytest.approx(5.0 * evaluate.hours)
    assert prep.money and train.money and evaluate.money
    assert run.money == pytest.approx(prep.money + train.money + evaluate.money)
    most = prep.money + train.money + 5.0 * evaluate.most_hours
    assert run.most_money == pytest.approx(most)
    by_gpu = HourlyPrices(currency="USD", gpu_hour={"NVIDIA-L4": 0.8, "Tesla-T4": 0.3})
    prep, train, evaluate = planned(recipe, by_gpu).stages
    assert train.hours and evaluate.hours
    assert prep.money is None
    assert train.money == pytest.approx(8 * 0.8 * train.hours)
    assert evaluate.money == pytest.approx(0.8 * evaluate.hours)


def test_what_has_no_price_is_named() -> None:
    other = HourlyPrices(currency="EUR", gpu_hour={"NVIDIA-L4": 0.8})
    run = planned(a_run("t4x1"), other)
    assert (run.currency, run.money, run.most_money) == ("EUR", None, None)
    on_gpu = "(prices.node_hour.t4x1, or prices.gpu_hour.Tesla-T4)"
    assert run.left_out[:3] == (
        "the price of prep (prices.cpu_node_hour)",
        f"the price of train {on_gpu}",
        f"the price of evaluate {on_gpu}",
    )
    partly = planned(a_run("l4x1"), other)
    assert partly.money is not None
    assert partly.left_out[0] == "the price of prep (prices.cpu_node_hour)"


def test_a_recipe_without_gpus_runs_on_cpu_nodes() -> None:
    recipe = load_recipe("demo", catalog=CATALOG)
    named = HourlyPrices(currency="EUR", node_hour={"cpu": 0.1}, cpu_node_hour=9)
    run = planned(recipe, named)
    assert run.money == pytest.approx(0.1 * run.hours)
    usual = HourlyPrices(currency="EUR", cpu_node_hour=0.2)
    assert planned(recipe, usual).money == pytest.approx(0.2 * run.hours)
    assert (run.gpu_hours, run.stages[1].gpus) == (0, 0)


@pytest.mark.parametrize(("rows", "mib"), [(20_000, 489), (20_000, 482), (200_000, 580)])
def test_memory_of_prep_as_measured(rows: int, mib: int) -> None:
    assert prep_memory(rows) / MIB == pytest.approx(mib, rel=0.05)


def test_time_of_prep_as_measured() -> None:
    """20,000 rows of 2,560 tokens took 28.6 s; the plan's rows have 1,000 tokens each."""
    data = {"dataset": "file", "path": "x.jsonl", "expected_rows": 51_200, "max_tokens": 8192}
    found = plan_prep(a_recipe(MODEL, "l4x1", data=data), CATALOG.models[MODEL], None)
    assert found.tokens == 20_000 * 2560
    assert found.work_s == pytest.approx(28.6, rel=0.2)
    released = 2 * 1_777_088_000
    assert found.download_s == pytest.approx(released / 100e6 + released / 200e6)


def test_a_file_of_unknown_length_has_no_time() -> None:
    data = {"dataset": "file", "path": "x.jsonl", "split": {"test_rows": 20}}
    run = planned(a_recipe(MODEL, "l4x1", data=data))
    prep, train, evaluate = run.stages
    assert (prep.hours, prep.memory_bytes, train.hours) == (None, None, None)
    assert evaluate.hours is not None
    assert run.left_out[:2] == ("the hours of prep", "the hours of train")
    assert run.hours == pytest.approx(evaluate.hours)


def test_prep_that_does_not_fit_its_pod() -> None:
    data = {"dataset": "file", "path": "x.jsonl", "expected_rows": 40_000_000}
    run = planned(a_recipe(MODEL, "l4x1", data=data))
    assert not run.stages[0].fits and not run.fits
    assert pod_memory(64, CATALOG.hardware["l4x1"]) == 64 * GIB
    assert pod_memory(None, CATALOG.hardware["cpu"]) == 5529 * MIB  # 90% of 6 GiB


def test_a_column_that_a_language_model_writes() -> None:
    """19,704 rows, 2 drafts each: prompts of 1,000 tokens beside 25 of the template."""
    generate = {"column": "c", "prompt": "x" * 100, "drafts": 2, "llm": LLM}
    run = planned(a_run("l4x1", data={"generate": generate, "max_tokens": 4096}))
    asked = run.stages[0].language_model
    assert asked is not None
    assert asked.requests == 39_408
    assert asked.input_tokens == 39_408 * 1025
    assert asked.input_cost == pytest.approx(39_408 * 1025 * 0.25 / 1e6)
    assert asked.most_cost == 20  # the budget, below what all replies could cost
    assert asked.hours == pytest.approx(39_408 * REPLY_S / 20 / 3600)
    assert run.left_out[0].startswith("the language model of data.generate")
    batch = {**generate, "llm": {**LLM, "mode": "batch", "budget": {"money": 9999}}}
    later = planned(a_run("l4x1", data={"generate": batch, "max_tokens": 4096}))
    asked = later.stages[0].language_model
    assert asked is not None
    assert (asked.hours, later.stages[0].hours) == (None, None)
    assert asked.input_cost == pytest.approx(0.5 * 39_408 * 1025 * 0.25 / 1e6)
    assert asked.most_cost == pytest.approx(
        0.5 * (39_408 * 1025 * 0.25 + 39_408 * 2000 * 2.0) / 1e6
    )


def test_a_judge_holds_the_gpu_while_it_is_waited_for() -> None:
    judged = {"judge": {"llm": LLM, "rating": "Is it good?"}, "instruction": "Be brief."}
    run = planned(a_run("l4x1", evaluate=judged))
    asked = run.stages[2].language_model
    assert asked is not None and asked.hours is not None and run.evaluation is not None
    assert asked.requests == 3 * 200 * 3  # three arms; both orders and a rating
    hours = run.stages[2].hours
    assert hours == pytest.approx(run.evaluation.hours + asked.hours)
    no_prices = {key: value for key, value in LLM.items() if key != "prices"}
    own = {"judge": {"llm": {**no_prices, "budget": {"tokens": 10**9}}}}
    asked = planned(a_run("l4x1", evaluate=own)).stages[2].language_model
    assert asked is not None and asked.most_cost is None


def test_the_catalog_says_how_many_rows_the_generator_makes() -> None:
    assert CATALOG.datasets["inventory-sums"].rows == ROWS
