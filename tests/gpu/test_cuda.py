"""The CUDA paths of training: kernels chosen by capability, and what must be exact on them too."""

import pytest
import torch
from trainer import Make, some_examples

from thinktune.schema.errors import OutOfGpuMemory
from thinktune.tasks.model import attention
from thinktune.tasks.model.adapter import trainable
from thinktune.tasks.train.sft.batches import pack
from thinktune.tasks.train.sft.examples import TrainExample

Gradients = dict[str, torch.Tensor]
CUDA = torch.device("cuda", 0)


def cosine(one: Gradients, other: Gradients) -> float:
    """Of the worst parameter."""
    similarity = torch.nn.functional.cosine_similarity
    return min(
        float(similarity(one[n].flatten().double(), other[n].flatten().double(), dim=0))
        for n in other
    )


@pytest.mark.parametrize("base", ["nf4", "16bit"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_packed_half_precision_agrees_with_fp32(make_trainer: Make, base: str, dtype: str) -> None:
    examples = some_examples(8)
    loss, exact = make_trainer(base=base, packing=False).gradients(examples)
    half_loss, half = make_trainer(base=base, dtype=dtype).gradients(examples)
    assert half_loss == pytest.approx(loss, rel=5e-3)
    assert cosine(half, exact) > 0.999
    norms = [float(half[n].norm() / exact[n].norm()) for n in exact]
    assert min(norms) > 0.98
    assert max(norms) < 1.02


def test_fp32_on_the_gpu_packed_and_single(make_trainer: Make) -> None:
    examples = some_examples(8)
    _, packed = make_trainer().gradients(examples)
    _, single = make_trainer(packing=False).gradients(examples)
    worst = max(float((packed[n] - single[n]).norm() / single[n].norm()) for n in single)
    assert worst < 1e-4


def test_the_varlen_kernel_stays_inside_documents(make_trainer: Make) -> None:
    model = make_trainer(dtype="bfloat16").model.eval()
    assert model.config._attn_implementation == attention.VARLEN
    examples = some_examples(4)
    changed = [*examples[:2], TrainExample("x", some_examples(9)[8].ids, 1), examples[3]]

    def hidden(documents: list[TrainExample]) -> list[torch.Tensor]:
        row = pack(documents).to(CUDA)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            out = model.get_base_model().model(
                input_ids=row.ids,
                position_ids=row.positions,
                document_lengths=row.lengths,
                document_boundaries=row.boundaries,
            )
        return list(torch.split(out.last_hidden_state[0], list(row.lengths)))

    before, after = hidden(examples), hidden(changed)
    for number in (0, 1, 3):
        assert torch.allclose(before[number], after[number], rtol=2e-2, atol=2e-2)


def test_the_form_without_varlen_kernels_works_when_forced(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = some_examples(8)
    _, varlen = make_trainer(dtype="float16").gradients(examples)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))  # a T4
    trainer = make_trainer(dtype="float16")
    assert trainer.model.config._attn_implementation == attention.PER_DOCUMENT
    assert cosine(trainer.gradients(examples)[1], varlen) > 0.999


def test_eight_bit_states_resume(make_trainer: Make) -> None:
    settings = {"dtype": "bfloat16", "base": "nf4", "epochs": 9, "dropout": 0.1}
    settings |= {"optimizer": "adamw_8bit", "max_steps": 6, "checkpoint_every_steps": 3}
    whole = make_trainer(**settings)
    whole.lifecycle.run()
    assert whole.lifecycle._optimizer.name == "AdamW with 8-bit states"
    expected = {n: p.detach().clone() for n, p in trainable(whole.model).items()}
    whole.context.store.delete_prefix("runs/r/train/checkpoints/step-000006")
    again = make_trainer(**settings)
    again.lifecycle.run()
    parameters = {n: p.detach() for n, p in trainable(again.model).items()}
    assert cosine(parameters, expected) > 0.9999


def test_out_of_memory_is_said_and_not_retried(make_trainer: Make) -> None:
    trainer = make_trainer({"micro_batch_tokens": 65536}, dtype="bfloat16", max_steps=1)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    del free
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + 2**20) / total  # a megabyte more than it has
    )
    long = [TrainExample(f"l{n}", some_examples(1)[0].ids.repeat(400), 1) for n in range(20)]
    object.__setattr__(trainer.objective._data, "train", long)
    try:
        with pytest.raises(OutOfGpuMemory, match="rows of 65536 tokens") as raised:
            trainer.lifecycle.run()
        assert raised.value.exit_code == 73
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
