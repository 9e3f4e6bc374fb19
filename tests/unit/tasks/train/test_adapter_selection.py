"""Which step's adapter is taken, and when a training ends early: the same however it is stopped."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainer import Make, Trainer

from thinktune.schema.errors import Preempted
from thinktune.schema.keys import checkpoint_prefix
from thinktune.schema.manifest import MetricValue
from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.train.learning_rate import learning_rate
from thinktune.tasks.train.objective import VALIDATION_LOSS
from thinktune.tasks.train.selection import Measurement, Selection

STEPS = 6
SETTINGS = {
    "epochs": 99,
    "max_steps": STEPS,
    "batch_size": 4,
    "lr": 0.03,
    "schedule": "constant",
    "warmup": 0.0,
    "evaluate_every_steps": 1,
    "checkpoint_every_steps": 3,
}
"""The second step is the best of the first four: between two checkpoints, and not the last one."""
BEST, EARLY = 2, 4
"""Steps: the best of the first four, and the one at which a patience of two is at its end."""


class Killed(BaseException):
    """As SIGKILL: nothing is committed on the way out."""


def selection(steps: int = 99, **train: object) -> Selection:
    settings = {"batch_size": 1, "evaluate_every_steps": 1, "select": "best", **train}
    return Selection(TrainSpec(**settings), steps)


def test_of_equal_losses_the_first_is_the_best() -> None:
    chosen = selection()
    assert [
        chosen.add(step, {VALIDATION_LOSS: loss}) for step, loss in enumerate((3, 2, 2, 4))
    ] == [
        True,
        True,
        False,
        False,
    ]
    assert chosen.best is not None
    assert chosen.best.step == 1
    assert chosen.describe() == (
        "step 1 has the lowest validation loss of 4, 2.0000;"
        " that of step 3, the last one, is 4.0000"
    )


def test_without_settings_nothing_is_chosen() -> None:
    chosen = selection(select="last")
    assert not chosen.add(1, {"reward": 1.0})
    assert chosen.best is None
    assert not chosen.stopped_early


def test_patience_counts_measurements_since_the_lowest() -> None:
    chosen = selection(early_stopping_patience=2)
    stopped = []
    for step, loss in enumerate((5.0, 4.0, 4.5, 3.9, 3.9, 4.0)):
        chosen.add(step, {VALIDATION_LOSS: loss})
        stopped.append(chosen.stopped_early)
    assert stopped == [False, False, False, False, False, True]
    again = selection(early_stopping_patience=2)
    rows = [{"step": n, "loss": 0.0} for n in range(9)]
    again.replay([*rows, *({"step": n, VALIDATION_LOSS: x} for n, x in ((0, 5.0), (1, 4.0)))])
    assert again.best == chosen._measured[1]
    assert not again.stopped_early


def test_at_the_last_step_nothing_is_early() -> None:
    chosen = selection(steps=2, early_stopping_patience=1)
    chosen.add(1, {VALIDATION_LOSS: 1.0})
    chosen.add(2, {VALIDATION_LOSS: 2.0})
    assert not chosen.stopped_early


@dataclass
class Outcome:
    """What came of a training."""

    adapter: dict[str, torch.Tensor]
    rows: list[dict[str, object]]

    @classmethod
    def of(cls, trainer: Trainer) -> "Outcome":
        timed = ("seconds", "tokens_per_s")
        rows = [{k: v for k, v in r.items() if k not in timed} for r in trainer.metrics.rows()]
        adapter = {n: p.detach().clone() for n, p in trainable(trainer.model).items()}
        return cls(adapter, rows)

    def same(self, other: "Outcome") -> bool:
        return (
            self.rows == other.rows
            and self.adapter.keys() == other.adapter.keys()
            and all(
                torch.equal(tensor, other.adapter[name]) for name, tensor in self.adapter.items()
            )
        )


def fresh(make_trainer: Make, tmp_path: Path, **train: object) -> Trainer:
    """A process that starts now: what it measured before is in the store alone."""
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    return make_trainer(**{**SETTINGS, **train})


def kill_in_step(trainer: Trainer, step: int) -> None:
    """Step `step`, counted from 0, is not finished; of a training that is over, nothing is."""
    inner, end = trainer.lifecycle.step, trainer.lifecycle._select

    def killed(number: int) -> int:
        if number == step:
            raise Killed
        return inner(number)

    def killed_at_the_end(done: int) -> None:
        if done == step:
            raise Killed
        end(done)

    trainer.lifecycle.step = killed  # type: ignore[method-assign]
    trainer.lifecycle._select = killed_at_the_end  # type: ignore[method-assign]


def validations(trainer: Trainer) -> list[dict[str, MetricValue]]:
    return [row for row in trainer.metrics.rows() if VALIDATION_LOSS in row]


def file_of(trainer: Trainer, step: int, name: str) -> Path:
    store = trainer.context.store
    (key,) = (i.key for i in store.list(checkpoint_prefix("r", step)) if i.key.endswith(name))
    path = store.local_path(key)
    assert path is not None
    return path


def test_the_best_adapter_is_that_of_the_lowest_validation_loss(
    make_trainer: Make, tmp_path: Path
) -> None:
    every = {"max_steps": EARLY, "checkpoint_every_steps": 1}
    trainer = fresh(make_trainer, tmp_path, **every, keep_checkpoints="all")
    trainer.lifecycle.run()
    measured = {int(str(r["step"])): r[VALIDATION_LOSS] for r in validations(trainer)}
    assert min(measured, key=lambda step: float(str(measured[step]))) == BEST
    assert trainer.checkpoints.steps() == [4, 3, 2, 1]
    expected = load_file(file_of(trainer, BEST, "adapter.safetensors"))
    trainer.context.store.delete_prefix("runs/r")
    trainer = fresh(make_trainer, tmp_path, **every, select="best")
    trainer.lifecycle.run()
    assert trainer.lifecycle.selection.best == Measurement(BEST, float(str(measured[BEST])))
    for name, parameter in trainable(trainer.model).items():
        assert torch.equal(parameter, expected[name]), name
    assert trainer.checkpoints.steps() == [4, 3]  # that of the best step is gone
    last = load_file(file_of(trainer, EARLY, "adapter.safetensors"))
    assert not all(torch.equal(last[name], expected[name]) for name in expected)


@pytest.mark.parametrize("killed_in", [BEST - 1, BEST, EARLY - 1, EARLY])
def test_killed_at_any_step_it_gives_the_same(
    make_trainer: Make, tmp_path: Path, killed_in: int
) -> None:
    """Before the best step, right after it, past the next checkpoint, and once all is trained."""
    settings = {"select": "best", "early_stopping_patience": 2}
    whole = fresh(make_trainer, tmp_path, **settings)
    whole.lifecycle.run()
    assert whole.lifecycle.selection.stopped_early
    assert whole.checkpoints.steps() == [EARLY, 3]
    expected = Outcome.of(whole)
    whole.context.store.delete_prefix("runs/r")
    killed = fresh(make_trainer, tmp_path, **settings)
    kill_in_step(killed, killed_in)
    with pytest.raises(Killed):
        killed.lifecycle.run()
    again = fresh(make_trainer, tmp_path, **settings)
    again.lifecycle.run()
    assert again.lifecycle.selection.stopped_early
    assert Outcome.of(again).same(expected)


def test_asked_to_stop_after_each_step_it_gives_the_same(
    make_trainer: Make, tmp_path: Path
) -> None:
    settings = {"select": "best", "max_steps": EARLY}
    whole = fresh(make_trainer, tmp_path, **settings)
    whole.lifecycle.run()
    expected = Outcome.of(whole)
    whole.context.store.delete_prefix("runs/r")
    for step in range(1, EARLY):
        stopped = fresh(make_trainer, tmp_path, **settings)
        stopped.context.stop.requested = True
        with pytest.raises(Preempted, match=f"step {step} of {EARLY} is committed"):
            stopped.lifecycle.run()
    again = fresh(make_trainer, tmp_path, **settings)
    again.lifecycle.run()
    assert Outcome.of(again).same(expected)


def test_a_damaged_checkpoint_costs_no_best_adapter(make_trainer: Make, tmp_path: Path) -> None:
    settings = {"select": "best", "max_steps": EARLY}
    whole = fresh(make_trainer, tmp_path, **settings)
    whole.lifecycle.run()
    path = file_of(whole, EARLY, "best.safetensors")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    again = fresh(make_trainer, tmp_path, **settings)
    again.lifecycle.run()
    assert Outcome.of(again).same(Outcome.of(whole))


def test_stopped_early_it_says_so_and_the_schedule_is_that_of_all_steps(
    make_trainer: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cosine = {"schedule": "cosine", "lr": 0.04}
    trainer = fresh(make_trainer, tmp_path, **cosine, early_stopping_patience=1)
    trainer.lifecycle.run()
    done = trainer.checkpoints.steps()[0]
    assert done < STEPS
    out = " ".join(capsys.readouterr().out.split())
    said = f"stopped early after step {done} of {STEPS}: no lower validation loss in 1 measurement"
    assert said in out
    progress = json.loads(trainer.context.store.get("runs/r/train/progress.json"))
    assert (progress["done"], progress["of"], progress["eta_s"]) == (done, done, None)
    assert progress["figures"]["stopped early"] is True
    train = trainer.task.train
    rates = [row["lr"] for row in trainer.metrics.rows() if "lr" in row]
    assert rates == [learning_rate(train, step, STEPS) for step in range(done)]
