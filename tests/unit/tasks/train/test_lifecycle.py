"""What ends a training early, and what is left behind."""

import math

import pytest
import torch
from trainer import Make, Trainer, some_examples

from thinktune.schema.errors import DataInvalid, LossNotFinite, OutOfGpuMemory, Preempted
from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.train.checkpoint import Checkpoints, Foreign, Identity
from thinktune.tasks.train.lifecycle import FP16_SCALE, Lifecycle
from thinktune.tasks.train.sft.objective import Row


def test_a_loss_that_is_not_finite_names_the_examples(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=2)
    with torch.no_grad():
        next(iter(trainable(trainer.model).values())).fill_(float("nan"))
    with pytest.raises(
        LossNotFinite, match=r"step 1: the loss is nan with the examples e\d+"
    ) as at:
        trainer.lifecycle.run()
    assert at.value.exit_code == 74


def test_a_gradient_that_is_not_finite_is_never_applied(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=2, checkpoint_every_steps=1)
    parameters = trainable(trainer.model)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    next(iter(parameters.values())).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(LossNotFinite, match=r"the gradient norm is (inf|nan) with the examples"):
        trainer.lifecycle.run()
    assert all(torch.equal(p, before[name]) for name, p in parameters.items())
    assert trainer.checkpoints.steps() == []


def in_float16(trainer: Trainer) -> Lifecycle[Row]:
    """The same training, its gradients scaled as float16 needs it; the arithmetic is float32's."""
    trainer.dtype = torch.float16
    return trainer.lifecycle_of(trainer.objective)


def test_a_gradient_that_overflows_is_computed_again_at_half_the_scale(make_trainer: Make) -> None:
    examples = some_examples(8)
    _, plain = make_trainer().gradients(examples)
    trainer = make_trainer()
    trainer.lifecycle = in_float16(trainer)
    largest = 3 * float(max(gradient.abs().max() for gradient in plain.values()))
    for parameter in trainable(trainer.model).values():  # as if no number above it had a place
        parameter.register_hook(lambda gradient: gradient.where(gradient.abs() < largest, math.inf))
    _, found = trainer.gradients(examples)
    assert trainer.lifecycle._scale == 2
    for name, gradient in found.items():
        assert torch.equal(gradient, plain[name]), name


def test_a_gradient_that_is_infinite_at_any_scale_ends_the_training(make_trainer: Make) -> None:
    trainer = make_trainer({"micro_batch_tokens": 4096}, max_steps=2, checkpoint_every_steps=1)
    lifecycle = in_float16(trainer)
    tried = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        tried.append(lifecycle._scale)
        assert len(tried) < 40, "it halves the scale for ever"
        return gradient * math.inf

    next(iter(trainable(trainer.model).values())).register_hook(overflow)
    with pytest.raises(LossNotFinite, match=r"the gradient norm is (inf|nan) with the examples"):
        lifecycle.run()
    assert tried == [FP16_SCALE / 2**n for n in range(15)]
    assert trainer.checkpoints.steps() == []


def test_another_recipe_under_the_same_name_removes_nothing(make_trainer: Make) -> None:
    trainer = make_trainer(epochs=9, max_steps=4, checkpoint_every_steps=2)
    trainer.lifecycle.run()
    identity = Identity("r", {}, "1" * 64)
    other = Checkpoints(trainer.context, identity, 2)
    with pytest.raises(Foreign, match="by another recipe") as raised, other.newest():
        pass
    assert raised.value.exit_code == 66
    assert other.steps() == [4, 2]


def test_out_of_memory_says_how_long_the_rows_were(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer({"micro_batch_tokens": 512}, max_steps=2)

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    # No CPU raises this by itself; the GPU tests provoke it for real.
    monkeypatch.setattr(trainer.objective, "_row_loss", full)
    with pytest.raises(OutOfGpuMemory, match="rows of 512 tokens") as raised:
        trainer.lifecycle.run()
    assert raised.value.exit_code == 73


def test_an_example_longer_than_a_micro_batch_is_refused(make_trainer: Make) -> None:
    with pytest.raises(DataInvalid, match=r"has \d+ tokens, and a micro-batch takes 20") as raised:
        make_trainer({"micro_batch_tokens": 20})
    assert raised.value.exit_code == 65


def test_asked_to_stop_it_commits_the_step_at_work(make_trainer: Make) -> None:
    trainer = make_trainer(epochs=9, max_steps=5, checkpoint_every_steps=50)
    trainer.context.stop.requested = True
    with pytest.raises(Preempted, match="step 1 of 5 is committed"):
        trainer.lifecycle.run()
    assert trainer.checkpoints.steps() == [1]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(make_trainer: Make) -> None:
    whole = make_trainer(epochs=9, max_steps=6, checkpoint_every_steps=2, dropout=0.1)
    whole.lifecycle.run()
    expected = {n: p.detach().clone() for n, p in trainable(whole.model).items()}
    store = whole.context.store
    newest = next(i.key for i in store.list("runs/r/train/checkpoints/step-000006/attempts"))
    path = store.local_path(newest)
    assert path is not None
    path.chmod(0o644)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    again = make_trainer(epochs=9, max_steps=6, checkpoint_every_steps=2, dropout=0.1)
    again.lifecycle.run()
    assert again.checkpoints.steps() == [6, 4]
    for name, parameter in trainable(again.model).items():
        assert torch.equal(parameter, expected[name]), name


def test_only_the_newest_checkpoints_are_kept(make_trainer: Make) -> None:
    trainer = make_trainer(epochs=9, max_steps=7, checkpoint_every_steps=1, keep_checkpoints=3)
    trainer.lifecycle.run()
    assert trainer.checkpoints.steps() == [7, 6, 5]
