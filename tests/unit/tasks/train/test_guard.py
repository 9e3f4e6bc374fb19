"""Steps that must not change the adapter."""

import json
import math

import pytest
import torch
from trainer import Make, Trainer

from thinktune.schema.errors import LossNotFinite
from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.train.guard import WARMUP_STEPS, SpikeGuard
from thinktune.tasks.train.lifecycle import _StepLoss
from thinktune.tasks.train.objective import StepBatches
from thinktune.tasks.train.sft.objective import Row

CPU = torch.device("cpu")


def judged(guard: SpikeGuard, *norms: float, loss: float = 1.0) -> list[bool]:
    return [bool(guard.judge(torch.tensor(loss), torch.tensor(norm))) for norm in norms]


def test_a_spike_is_skipped_once_the_usual_norm_is_known() -> None:
    guard = SpikeGuard(10, CPU)
    assert judged(guard, 100.0, *[1.0] * (WARMUP_STEPS - 1)) == [False] * WARMUP_STEPS
    usual = float(guard.usual())
    assert judged(guard, 11 * usual, usual) == [True, False]
    assert float(guard.skipped) == 1


def test_a_spike_does_not_move_what_is_usual() -> None:
    guard = SpikeGuard(10, CPU)
    judged(guard, *[1.0] * WARMUP_STEPS)
    assert judged(guard, 50.0, 50.0, 50.0) == [True] * 3
    assert float(guard.usual()) == 1
    assert float(guard.skipped) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_always_skipped(bad: float) -> None:
    assert judged(SpikeGuard(None, CPU), bad, 1.0, 1e9) == [True, False, False]
    assert judged(SpikeGuard(None, CPU), 1.0, loss=bad) == [True]


def test_its_state_goes_on_where_it_was() -> None:
    guard, other = SpikeGuard(3, CPU), SpikeGuard(3, CPU)
    judged(guard, *[1.0 + n / 7 for n in range(30)], 90.0)
    other.load(json.loads(json.dumps(guard.state())))
    assert other.state() == guard.state()
    assert judged(other, 9.0, 2.0) == judged(guard, 9.0, 2.0)


def spiking(trainer: Trainer, steps: range) -> None:
    """Multiplies the gradients of those steps."""
    inner = trainer.lifecycle._gradients

    def larger(taken: StepBatches[Row], step: int) -> _StepLoss:
        loss = inner(taken, step)
        if step in steps:
            for parameter in trainable(trainer.model).values():
                assert parameter.grad is not None
                parameter.grad *= 1e4
        return loss

    trainer.lifecycle._gradients = larger  # type: ignore[method-assign]


def test_a_skipped_step_changes_nothing_and_is_counted(
    make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(epochs=99, max_steps=16, max_grad_norm=1e9)
    spiking(trainer, range(12, 13))
    for step in range(12):
        trainer.lifecycle.step(step)
    before = {n: p.detach().clone() for n, p in trainable(trainer.model).items()}
    trainer.lifecycle.step(12)
    for name, parameter in trainable(trainer.model).items():
        assert torch.equal(parameter, before[name]), name
    trainer.lifecycle.step(13)
    trainer.lifecycle.finish()
    assert any(not torch.equal(p, before[n]) for n, p in trainable(trainer.model).items())
    assert "step 13 skipped: gradient norm" in capsys.readouterr().out
    assert [row["skipped"] for row in trainer.metrics.rows()] == [0] * 12 + [1, 1]


def test_too_many_skipped_steps_end_the_training(make_trainer: Make) -> None:
    trainer = make_trainer(epochs=99, max_steps=30, max_grad_norm=1e9, max_skipped=3)
    spiking(trainer, range(12, 30))
    with pytest.raises(LossNotFinite, match=r"step 15: .*, 3 steps skipped so far") as raised:
        trainer.lifecycle.run()
    assert raised.value.exit_code == 74


@pytest.mark.parametrize("stop", [False, True])
def test_nothing_of_a_step_that_is_not_finite_is_kept(make_trainer: Make, stop: bool) -> None:
    """Its figures are read one step late: neither a checkpoint nor a request to stop gets past."""
    trainer = make_trainer(epochs=99, max_steps=9, checkpoint_every_steps=1)
    inner = trainer.lifecycle._gradients

    def broken(taken: StepBatches[Row], step: int) -> _StepLoss:
        loss = inner(taken, step)
        if step == 4:
            trainer.context.stop.requested = stop
            for parameter in trainable(trainer.model).values():
                parameter.grad = torch.full_like(parameter, math.nan)
        return loss

    trainer.lifecycle._gradients = broken  # type: ignore[method-assign]
    with pytest.raises(LossNotFinite, match="step 5: the gradient norm is nan"):
        trainer.lifecycle.run()
    assert trainer.checkpoints.steps() == [4, 3]
    assert all(torch.isfinite(p).all() for p in trainable(trainer.model).values())


def test_the_guard_goes_on_where_a_checkpoint_left_it(make_trainer: Make) -> None:
    settings = {"epochs": 99, "checkpoint_every_steps": 6}
    first = make_trainer(**settings, max_steps=12)
    first.lifecycle.run()
    first.context.store.delete_prefix("runs/r/train/checkpoints/step-000012")
    again = make_trainer(**settings, max_steps=12)
    again.lifecycle.run()
    assert again.lifecycle._state.guard.state() == first.lifecycle._state.guard.state()


def test_all_examples_of_a_failed_step_are_written_down(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=2, batch_size=12)
    with torch.no_grad():
        next(iter(trainable(trainer.model).values())).fill_(float("nan"))
    with pytest.raises(LossNotFinite, match=r"and 4 more \(all in file://.*step-000001.json\)"):
        trainer.lifecycle.run()
    written = trainer.context.store.get("runs/r/train/not-finite-step-000001.json")
    assert len(json.loads(written)["examples"]) == 12
