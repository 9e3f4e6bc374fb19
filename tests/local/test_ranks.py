"""Several ranks train like one: every ZeRO stage, any number, resumed on another number."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from dense import write_shape
from ranks import Outcome, train

LAYERS = 5
SETTINGS: dict[str, Any] = {
    "base": "nf4",
    "max_steps": 6,
    "epochs": 9,
    "checkpoint_every_steps": 3,
    "lr": 1e-3,
}
STAGES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With biases, and more layers than there are slots for."""
    folder = tmp_path_factory.mktemp("model")
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    return write_shape(folder, "qwen2", num_hidden_layers=LAYERS, **shape)


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return train(1, model, tmp_path_factory.mktemp("alone"), [{}], **SETTINGS)[0]


def same(one: Outcome, other: Outcome, atol: float = 5e-5) -> None:
    """Within fp32 noise; six steps of AdamW can move a weight by 6e-3."""
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert one.adapter.keys() == other.adapter.keys()
    for name, tensor in one.adapter.items():
        torch.testing.assert_close(tensor, other.adapter[name], rtol=0, atol=atol)


def execution(stage: int, **more: int) -> dict[str, int]:
    return {"zero_stage": stage, "micro_batch_tokens": 128, **more}


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_stage_trains_like_one_process(
    ranks: int, model: Path, alone: Outcome, tmp_path: Path
) -> None:
    executions = [execution(stage) for stage in STAGES]
    executions.append(execution(3, recompute_layers=LAYERS - 2))
    for outcome in train(ranks, model, tmp_path, executions, **SETTINGS):
        same(outcome, alone)


def test_a_base_in_16_bits_is_divided_too(model: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "base": "16bit"}
    alone = train(1, model, tmp_path / "alone", [{}], **settings)[0]
    for outcome in train(2, model, tmp_path / "two", [execution(3), execution(1)], **settings):
        same(outcome, alone)


def test_ranks_without_an_example_take_part(model: Path, tmp_path: Path) -> None:
    """Three examples a step on four ranks."""
    few = {**SETTINGS, "batch_size": 3}
    alone = train(1, model, tmp_path / "alone", [{}], **few)[0]
    for outcome in train(4, model, tmp_path / "four", [execution(s) for s in STAGES], **few):
        same(outcome, alone)


def test_a_checkpoint_resumes_on_any_number_of_ranks(
    model: Path, alone: Outcome, tmp_path: Path
) -> None:
    """Three steps on two ranks, three on one, and the other way round; the step is the same."""
    whole = train(2, model, tmp_path, [execution(1)], **SETTINGS)[0]
    checkpoints = tmp_path / "store-0/runs/r/train/checkpoints"
    shutil.rmtree(checkpoints / "step-000006")
    on_one = train(1, model, tmp_path, [{}], **SETTINGS)[0]
    same(on_one, whole)
    shutil.rmtree(checkpoints / "step-000006")
    on_three = train(3, model, tmp_path, [execution(3)], **SETTINGS)[0]
    same(on_three, whole)
    same(on_three, alone)


def test_ranks_take_the_same_step_and_stop_at_the_same_one(model: Path, tmp_path: Path) -> None:
    """With every ZeRO stage; a best adapter from two ranks goes on to one."""
    steps = {"max_steps": 9, "batch_size": 4, "lr": 0.03, "schedule": "constant", "warmup": 0.0}
    choice = {"evaluate_every_steps": 1, "select": "best", "early_stopping_patience": 2}
    choosing, atol = SETTINGS | steps | choice, 1e-3  # each step can move a weight by 3e-2
    alone = train(1, model, tmp_path / "alone", [{}], **choosing)[0]
    assert 3 < len(alone.losses) < 9  # stopped early, past the first checkpoint
    for outcome in train(2, model, tmp_path / "two", [execution(s) for s in STAGES], **choosing):
        assert len(outcome.losses) == len(alone.losses)
        same(outcome, alone, atol)
    checkpoints = tmp_path / "two/store-1/runs/r/train/checkpoints"
    shutil.rmtree(checkpoints / f"step-{len(alone.losses):06}")
    shutil.copytree(tmp_path / "two/store-1", tmp_path / "one/store-0")
    on_one = train(1, model, tmp_path / "one", [{}], **choosing)[0]
    assert len(on_one.losses) == len(alone.losses)
    same(on_one, alone, atol)
