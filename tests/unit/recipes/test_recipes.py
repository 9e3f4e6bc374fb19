"""The recipes that ship: each is read, says what its reference says, and fits its own hardware."""

import pytest

from thinktune.plan.training.plan import make_plan
from thinktune.recipes.compose import OWN_FILE, load_catalog, load_recipe, recipe_names
from thinktune.schema.recipe import Recipe

CATALOG = load_catalog()

REFERENCES = {
    "final-answer-qwen-1.5b",
    "medical-cot-llama-8b",
    "medical-cot-llama-8b-full",
    "medical-cot-small",
    "qwen-32b",
    "qwen-14b",
    "llama-70b",
    "math-qwen-1.5b",
}


def recipe(name: str) -> Recipe:
    return load_recipe(name, catalog=CATALOG)


def test_every_reference_job_has_a_recipe() -> None:
    assert set(recipe_names()) >= REFERENCES


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_fits_its_own_hardware(name: str) -> None:
    own = recipe(name)
    dataset = CATALOG.datasets.get(own.data.dataset)
    plan = make_plan(
        own,
        CATALOG.models[own.model],
        CATALOG.hardware[own.hardware],
        CATALOG.hardware,
        dataset=dataset,
    )
    assert plan.fits, plan.reason
    assert len(own.description) > 40


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_questions_are_held_out(name: str) -> None:
    assert recipe(name).data.split.test_rows >= 50


def test_final_answer() -> None:
    own = recipe("final-answer-qwen-1.5b")
    assert (own.model, own.hardware) == ("r1-distill-qwen-1.5b", "a100-40x1")
    data, train = own.data, own.train
    assert data.dataset == "medical-o1-summary"
    assert data.split.test_rows == 326
    assert data.answer == "{answer}\n\nFinal Answer: {summary}"
    assert data.final_answer == "Final Answer:"
    assert (train.base, train.rank, train.alpha, train.rslora) == ("nf4", 16, 32, True)
    assert (train.optimizer, train.lr) == ("adamw_8bit", 2e-4)
    assert (train.batch_size, train.max_steps) == (128, 100)


def test_medical_chain_of_thought() -> None:
    own = recipe("medical-cot-llama-8b")
    data, train = own.data, own.train
    assert (own.model, data.dataset) == ("r1-distill-llama-8b", "medical-o1-en")
    assert (data.sample_rows, data.max_tokens) == (500, 2048)
    parts = [line for line in data.prompt.splitlines() if line.startswith("###")]
    assert parts == ["### Task:", "### Query:", "### Answer:"]
    assert (train.batch_size, train.max_steps, train.epochs) == (8, 60, 1)
    assert (train.optimizer, train.tracking, train.dtype) == ("adamw_8bit", ("wandb",), "auto")


def test_medical_chain_of_thought_on_all_rows() -> None:
    trial, full = recipe("medical-cot-llama-8b"), recipe("medical-cot-llama-8b-full")
    assert (full.data.sample_rows, full.train.max_steps) == (None, None)
    assert (full.model, full.data.prompt) == (trial.model, trial.data.prompt)


def test_small_medical_chain_of_thought() -> None:
    own = recipe("medical-cot-small")
    assert (own.model, own.hardware) == ("deepseek-coder-1.3b", "t4x1")
    assert (own.train.rank, own.train.alpha, own.train.dropout) == (16, 32, 0.05)


def test_small_medical_chain_of_thought_takes_under_40_minutes() -> None:
    own = recipe("medical-cot-small")
    model, hardware = CATALOG.models[own.model], CATALOG.hardware[own.hardware]
    plan = make_plan(own, model, hardware, CATALOG.hardware)
    assert plan.hours is not None and plan.hours < 40 / 60


@pytest.mark.parametrize("name", ["qwen-32b", "qwen-14b"])
def test_audit(name: str) -> None:
    own = recipe(name)
    assert own.model == f"r1-distill-{name}"
    data, train = own.data, own.train
    assert (data.dataset, data.path, data.format) == (OWN_FILE, "audit.jsonl", "messages")
    assert data.require_reasoning
    assert (train.rank, train.alpha, train.dropout, train.epochs) == (32, 64, 0.05, 3)
    assert isinstance(train.targets, tuple) and len(train.targets) == 7


def test_audit_runs_on_four_a100() -> None:
    assert recipe("qwen-32b").hardware == "a100-40x4"


def test_mathematics() -> None:
    own = recipe("math-qwen-1.5b")
    data, train = own.data, own.train
    assert (own.model, own.hardware) == ("r1-distill-qwen-1.5b", "t4x1")
    assert {f.column: f.any_of for f in data.filters} == {
        "input_quality": ("excellent",),
        "task_category": ("Math",),
    }
    assert data.balance is not None
    assert data.balance.values == ("easy", "medium", "hard", "very hard")
    assert data.require_reasoning
    assert data.max_tokens == 4096
    assert sum(line.startswith("###") for line in data.prompt.splitlines()) == 3
    assert (train.rank, train.alpha, train.dropout) == (16, 16, 0)
    assert (train.lr, train.schedule, train.warmup, train.weight_decay) == (
        1e-5,
        "cosine",
        0.1,
        0.01,
    )
    assert (train.epochs, train.batch_size, train.optimizer) == (2, 16, "adamw_8bit")
    assert own.evaluate.verifier == "math"


def test_llama_70b_learns_from_its_own_family() -> None:
    own = recipe("llama-70b")
    assert (own.model, own.data.dataset) == ("r1-distill-llama-70b", "medical-r1-distill")
    assert own.train.rank == 16
