"""A second objective, of another form than the first: the lifecycle knows nothing of SFT.

It learns to prefer one half of the vocabulary after prompts that are drawn anew for each step. Its
batches are plain tensors that must not be made ahead, its loss looks at the last token alone and
brings a figure of its own, and its validation gives two.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny import VOCABULARY
from trainer import Trainer, maker

from thinktune.schema.errors import LossNotFinite, OutOfGpuMemory, Preempted
from thinktune.schema.manifest import MetricValue
from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.runtime.stopping import Stop
from thinktune.tasks.train import step_log
from thinktune.tasks.train.lifecycle import Lifecycle
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.objective import BatchLoss, StepBatches, Validation
from thinktune.tasks.train.step_log import OWN_FIELDS, Instant

PROMPTS, LENGTH, STEPS = 6, 5, 6
Prompts = torch.Tensor
"""(prompts, LENGTH) token ids; a batch."""


class LowIds:
    """`Objective`: raises the chance that the next token is in the lower half of the vocabulary."""

    name = "prefers low ids"
    steps = STEPS
    prepares_ahead = False
    validates = True
    batch_limits = f"{PROMPTS} prompts of {LENGTH}"

    def __init__(self, model: PeftModel, stop: Stop, metrics: Metrics, batches: int) -> None:
        self._model = model
        self._stop = stop
        self._metrics = metrics
        self._batches = batches
        self.asked: list[tuple[int, int, torch.Tensor]] = []
        """Each step that batches were asked for, and at that moment: how many steps were written
        down, and a factor of the adapter."""
        self.validation = 0.0
        self.stop_at: int | None = None

    def batches(self, step: int) -> StepBatches[Prompts]:
        if step == self.stop_at:
            self._stop.requested = True
        written = [row for row in self._metrics.rows() if "loss" in row]
        self.asked.append((step, len(written), factor(self._model).clone()))
        draw = torch.Generator().manual_seed(1000 + step)
        ids = torch.randint(3, VOCABULARY, (PROMPTS, LENGTH), generator=draw)
        return StepBatches(
            batches=ids.chunk(self._batches),
            weight=PROMPTS,
            tokens=ids.numel(),
            examples=[f"prompt {step}-{number}" for number in range(PROMPTS)],
            figures={"drawn_from": 1000 + step},
        )

    def loss(self, batch: Prompts) -> BatchLoss:
        chances = torch.softmax(self._model(input_ids=batch).logits[:, -1].float(), -1)
        low = chances[:, : VOCABULARY // 2].sum(-1)
        return BatchLoss(-torch.log(low).sum(), {"low_share": low.detach().sum()})

    def validate(self) -> Validation:
        assert not self._model.training
        assert not torch.is_grad_enabled()
        figures = {"low_share_of_all": self.validation, "prompts_seen": float(len(self.asked))}
        return Validation(figures, ["the validation prompts"])


def factor(model: PeftModel) -> torch.Tensor:
    return next(iter(trainable(model).values())).detach()


@dataclass
class Training:
    """A lifecycle over `LowIds`, and its parts."""

    lifecycle: Lifecycle[Prompts]
    objective: LowIds
    trainer: Trainer

    def adapter(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in trainable(self.trainer.model).items()}

    def rows(self) -> list[dict[str, MetricValue]]:
        timed = ("seconds", "tokens_per_s")
        rows = self.trainer.metrics.rows()
        return [{k: v for k, v in row.items() if k not in timed} for row in rows]


Make = Callable[..., Training]


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path) -> Make:
    """`make(batches, …)`: a training of the tiny model; each goes on in the same store."""

    def make(batches: int = 2, **train: object) -> Training:
        settings = {"lr": 1e-2, "checkpoint_every_steps": 2, "evaluate_every_steps": 3, **train}
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        trainer = maker(tiny_folder, tmp_path)(**settings)
        trainer.model.get_base_model().set_attn_implementation("eager")
        objective = LowIds(trainer.model, trainer.context.stop, trainer.metrics, batches)
        return Training(trainer.lifecycle_of(objective), objective, trainer)

    return make


def test_it_learns_and_its_figures_are_written_down(make: Make) -> None:
    training = make(lr=5e-2)
    training.lifecycle.run()
    rows = training.rows()
    steps = [row for row in rows if "loss" in row]
    assert [row["drawn_from"] for row in steps] == list(range(1000, 1000 + STEPS))
    assert [row["tokens"] for row in steps] == [PROMPTS * LENGTH] * STEPS
    assert all(0 < row["low_share"] < 1 for row in steps)
    assert steps[-1]["loss"] < 0.95 * steps[0]["loss"]
    checks = [row for row in rows if "loss" not in row]
    assert [row["step"] for row in checks] == [3, 6]
    assert all(row.keys() == {"step", "low_share_of_all", "prompts_seen"} for row in checks)
    assert training.trainer.checkpoints.steps() == [6, 4]


def test_a_training_stopped_half_way_goes_on_to_the_bit(make: Make) -> None:
    """With dropout, whose draw is a function of the step."""
    whole = make(dropout=0.2)
    whole.lifecycle.run()
    whole.trainer.context.store.delete_prefix("runs/r")
    first = make(dropout=0.2)
    first.objective.stop_at = 2
    with pytest.raises(Preempted, match="step 3 of 6 is committed"):
        first.lifecycle.run()
    assert first.trainer.checkpoints.steps() == [3, 2]
    again = make(dropout=0.2)
    again.lifecycle.run()
    assert [step for step, *_ in again.objective.asked] == [3, 4, 5]
    assert [row | {"prompts_seen": 0} for row in again.rows()] == [
        row | {"prompts_seen": 0} for row in whole.rows()
    ]
    expected = whole.adapter()
    for name, tensor in again.adapter().items():
        assert torch.equal(tensor, expected[name]), name


def test_batches_are_asked_for_once_the_step_before_is_done(make: Make) -> None:
    training = make()
    training.lifecycle.run()
    asked = training.objective.asked
    assert [step for step, *_ in asked] == list(range(STEPS))
    assert [written for _, written, _ in asked] == list(range(STEPS))
    for (*_, before), (*_, after) in itertools.pairwise(asked):
        assert not torch.equal(before, after)


class Late(Instant):
    """A point in the work of a GPU: nothing is written down before somebody waits for it."""

    @property
    def on_gpu(self) -> bool:
        return True


def test_on_a_gpu_too_batches_wait_for_the_step_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_log, "Instant", Late)
    training = make()
    training.lifecycle.run()
    assert [written for _, written, _ in training.objective.asked] == list(range(STEPS))


def test_made_ahead_they_do_not(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_log, "Instant", Late)
    monkeypatch.setattr(LowIds, "prepares_ahead", True)
    training = make(evaluate_every_steps=STEPS, checkpoint_every_steps=STEPS)
    training.lifecycle.run()
    assert [written for _, written, _ in training.objective.asked] == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("name", ["loss", "lr", "tokens", "drawn_from"])
def test_a_figure_of_a_name_in_use_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    training = make()
    inner = training.objective.loss

    def named(batch: Prompts) -> BatchLoss:
        return BatchLoss(inner(batch).loss, {name: torch.ones(())})

    monkeypatch.setattr(training.objective, "loss", named)
    with pytest.raises(ValueError, match=f"step 1: the objective's figures {name} have names"):
        training.lifecycle.run()


def test_a_figure_of_the_host_with_a_name_in_use_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make()
    inner = training.objective.batches

    def named(step: int) -> StepBatches[Prompts]:
        return dataclasses.replace(inner(step), figures={"seconds": 1.0, "step": 2})

    monkeypatch.setattr(training.objective, "batches", named)
    with pytest.raises(ValueError, match="figures seconds, step have names already in use"):
        training.lifecycle.run()


def test_the_log_writes_its_own_fields_and_no_others(make: Make) -> None:
    training = make()
    training.lifecycle.step(0)
    (row,) = training.trainer.metrics.rows()
    assert row.keys() - {"low_share", "drawn_from"} == OWN_FIELDS


def test_how_a_step_is_divided_changes_nothing(make: Make) -> None:
    one, three = make(1), make(3)
    one.lifecycle.step(0)
    three.lifecycle.step(0)
    (whole,), (parts,) = one.rows()[:1], three.rows()[-1:]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["low_share"] == pytest.approx(whole["low_share"], rel=1e-5)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)


def test_a_validation_that_is_not_finite_ends_the_training(make: Make) -> None:
    training = make()
    training.objective.validation = float("nan")
    said = "step 3: the low share of all is nan with the examples the validation prompts"
    with pytest.raises(LossNotFinite, match=said):
        training.lifecycle.run()
    assert training.trainer.checkpoints.steps() == [2]


def test_out_of_memory_says_how_large_a_batch_was(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make()

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.objective, "loss", full)
    with pytest.raises(OutOfGpuMemory, match="out of memory with 6 prompts of 5, 0 layers"):
        training.lifecycle.run()
