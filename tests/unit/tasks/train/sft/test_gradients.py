"""What must be exact: the gradient of a step, however it is computed."""

import pytest
import torch
from tiny import VOCABULARY
from trainer import Make, some_examples

from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.model.base import recompute_layers
from thinktune.tasks.train.sft.batches import pack
from thinktune.tasks.train.sft.examples import TrainExample

Gradients = dict[str, torch.Tensor]


def distance(one: Gradients, other: Gradients) -> float:
    """‖one - other‖ / ‖other‖ over all parameters, of the worst parameter."""
    return max(float((one[n] - other[n]).norm() / other[n].norm()) for n in other)


@pytest.mark.parametrize("base", ["nf4", "16bit"])
def test_one_packed_row_and_eight_single_ones_agree(make_trainer: Make, base: str) -> None:
    examples = some_examples(8)
    packed = make_trainer({"micro_batch_tokens": 4096}, base=base)
    loss, gradients = packed.gradients(examples)
    single = make_trainer({"micro_batch_tokens": 4096}, base=base, packing=False)
    other_loss, other = single.gradients(examples)
    assert loss == pytest.approx(other_loss, rel=1e-5)
    assert distance(gradients, other) < 1e-4
    several = make_trainer({"micro_batch_tokens": 100}, base=base)
    assert distance(several.gradients(examples)[1], other) < 1e-4


def test_recomputing_layers_changes_nothing(make_trainer: Make) -> None:
    examples = some_examples(8)
    kept = make_trainer().gradients(examples)[1]
    trainer = make_trainer()
    recompute_layers(trainer.model, 1)
    flags = [layer.gradient_checkpointing for layer in trainer.model.get_base_model().model.layers]
    assert flags == [True, False]
    assert distance(trainer.gradients(examples)[1], kept) < 1e-6


def test_the_plain_path_of_transformers_and_peft_agrees(make_trainer: Make) -> None:
    """Padded rows, the library's own attention and loss, the same adapter."""
    examples = some_examples(8)
    trainer = make_trainer()
    loss, gradients = trainer.gradients(examples)
    model = trainer.model
    model.get_base_model().set_attn_implementation("eager")
    longest = max(e.tokens for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        document = torch.from_numpy(example.ids.astype("int64"))
        ids[row, : example.tokens] = document
        mask[row, : example.tokens] = 1
        labels[row, example.first_target : example.tokens] = document[example.first_target :]
    model.zero_grad()
    plain = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    plain.backward()
    assert loss == pytest.approx(float(plain), rel=1e-5)
    other = {name: p.grad for name, p in trainable(model).items()}
    assert distance(gradients, other) < 1e-4


def test_no_document_sees_another(make_trainer: Make) -> None:
    model = make_trainer().model.eval()
    examples = some_examples(4)
    changed = [*examples[:2], TrainExample("x", some_examples(9)[8].ids, 1), examples[3]]

    def hidden(documents: list[TrainExample]) -> list[torch.Tensor]:
        row = pack(documents)
        with torch.no_grad():
            out = model.get_base_model().model(
                input_ids=row.ids,
                position_ids=row.positions,
                document_lengths=row.lengths,
                document_boundaries=row.boundaries,
            )
        return list(torch.split(out.last_hidden_state[0], list(row.lengths)))

    before, after = hidden(examples), hidden(changed)
    for number in (0, 1, 3):
        assert torch.equal(before[number], after[number])
    assert before[2].shape != after[2].shape or not torch.equal(before[2], after[2])


def test_a_long_head_in_chunks_is_the_same_loss(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = some_examples(8)
    _, whole = make_trainer().gradients(examples)
    monkeypatch.setattr("thinktune.tasks.train.sft.loss.CHUNK_TARGETS", 10)
    _, chunked = make_trainer().gradients(examples)
    assert distance(chunked, whole) < 1e-5


@pytest.mark.parametrize("base", ["nf4", "16bit"])
def test_gradients_are_the_same_after_an_evaluation(make_trainer: Make, base: str) -> None:
    """bitsandbytes repacks 4-bit weights in eval mode on some CPUs, and then trains wrongly."""
    examples = some_examples(8)
    trainer = make_trainer(base=base)
    _, before = trainer.gradients(examples)
    model = trainer.model.eval()
    with torch.no_grad():
        trainer.row_loss(pack(examples))
        model.get_base_model().set_attn_implementation("sdpa")
        model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=3, pad_token_id=2)
        model.get_base_model().set_attn_implementation("thinktune_per_document")
    _, after = trainer.gradients(examples)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_targets_follow_the_masked_part(make_trainer: Make) -> None:
    """Tokens before the first target do not move the loss of their own prediction."""
    example = some_examples(1)[0]
    trainer = make_trainer()
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.row_loss(pack([example]))
        row = pack([TrainExample("x", example.ids, 1)])
        everything = trainer.row_loss(row)
    assert len(row.targets) == example.tokens - 1
    assert (
        0
        < float(loss)
        < float(everything)
        < 2 * len(row.targets) * torch.log(torch.tensor(float(VOCABULARY)))
    )
