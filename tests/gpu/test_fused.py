"""The fused path against plain transformers + PEFT: same loss, same gradients, every variant."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import KINDS, write_shape
from trainer import Make, losses_that_moved, maker, some_examples

from thinktune.tasks.model.fused import kept, kernels
from thinktune.tasks.model.fused.decoder import FusedLoss
from thinktune.tasks.train.sft.batches import pack
from thinktune.tasks.train.sft.examples import TrainExample

Gradients = dict[str, torch.Tensor]
CUDA = torch.device("cuda", 0)


def compare(one: Gradients, other: Gradients, norm: float = 0.01, cosine: float = 0.999) -> None:
    for name in other:
        a, b = one[name].flatten().double(), other[name].flatten().double()
        assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > cosine, name
        assert float(a.norm() / b.norm()) == pytest.approx(1, abs=norm), name


def distance(one: Gradients, other: Gradients) -> float:
    """‖one - other‖ / ‖other‖ of all parameters together."""
    difference = sum(float((one[n] - other[n]).double().pow(2).sum()) for n in other)
    return float((difference / sum(float(other[n].double().pow(2).sum()) for n in other)) ** 0.5)


SHAPES = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "head_dim": 32, "tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": 80, "hidden_size": 320, "intermediate_size": 1000}),
    ("llama", {"num_attention_heads": 6, "num_key_value_heads": 1, "hidden_size": 768}),
    ("qwen2", {"num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 768}),
    ("qwen2", {"tie_word_embeddings": True, "head_dim": 24, "intermediate_size": 136}),
    ("qwen3", {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128}),
    ("qwen3", {"attention_bias": True}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 16}),
]
SETTINGS = [
    {"base": "nf4"},
    {"base": "16bit"},
    {"base": "nf4", "rslora": True, "rank": 8},
    {"base": "nf4", "rank": 5},
    {"base": "nf4", "rank": 64},
    {"base": "nf4", "targets": "attention"},
    {"base": "nf4", "targets": "mlp"},
    {"base": "nf4", "targets": ("q_proj", "v_proj", "down_proj")},
    {"base": "16bit", "targets": ("k_proj",)},
    {"base": "nf4", "dtype": "float16"},
]


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_gradients_of_plain_peft_on_any_shape(
    tmp_path: Path, gpu: torch.device, kind: str, shape: dict[str, object]
) -> None:
    make = maker(write_shape(tmp_path / "model", kind, **shape), tmp_path, gpu)
    settings = {"dtype": "bfloat16", "base": "nf4"}
    hold(make, settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_of_plain_peft_with_any_settings(
    tmp_path: Path, gpu: torch.device, settings: dict[str, object]
) -> None:
    make = maker(write_shape(tmp_path / "model", "qwen2"), tmp_path, gpu)
    hold(make, {"dtype": "bfloat16", **settings})


@pytest.mark.parametrize("seed", range(6))
def test_gradients_of_plain_peft_on_random_shapes(
    tmp_path: Path, gpu: torch.device, seed: int
) -> None:
    draw = random.Random(seed)
    groups, keys = draw.choice([1, 2, 3, 7]), draw.choice([1, 2, 4])
    shape = {
        "hidden_size": 64 * draw.randint(2, 12),
        "intermediate_size": 8 * draw.randint(10, 200),
        "num_attention_heads": groups * keys,
        "num_key_value_heads": keys,
        "head_dim": 8 * draw.randint(2, 16),
        "tie_word_embeddings": draw.random() < 0.5,
    }
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = {
        "dtype": "bfloat16",
        "base": draw.choice(["nf4", "16bit"]),
        "rank": draw.randint(2, 40),
        "targets": tuple(draw.sample(every, draw.randint(1, 7))),
    }
    kind = draw.choice(KINDS)
    hold(maker(write_shape(tmp_path / "model", kind, **shape), tmp_path, gpu), settings)


def hold(make: Make, settings: dict[str, object]) -> None:
    """Cosine ≥ 0.999 and norm within 1% for every parameter, against plain PEFT in the same
    precision or in fp32; or no further from fp32 than plain PEFT in the same precision is."""
    examples = some_examples(64)
    loss, exact = make(**{**settings, "dtype": "float32"}).gradients(examples)
    _, plain = make(**settings).gradients(examples)
    trainer = make({"micro_batch_tokens": 1024}, fused=True, **settings)
    assert isinstance(trainer.row_loss, FusedLoss)
    fused_loss, fused = trainer.gradients(examples)
    assert fused_loss == pytest.approx(loss, rel=5e-3)
    for name in exact:
        one, half, full = fused[name], plain[name], exact[name]
        no_further = float((one - full).norm()) <= float((half - full).norm())
        assert near(one, half) or near(one, full) or no_further, (name, figures(one, half, full))


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    cosine, norm = figures(one, other)
    return cosine >= 0.999 and abs(norm - 1) <= 0.01


def figures(one: torch.Tensor, *others: torch.Tensor) -> list[float]:
    """Cosine and norm ratio with each of the others."""
    found = []
    for other in others:
        a, b = one.flatten().double(), other.flatten().double()
        found += [float(torch.nn.functional.cosine_similarity(a, b, dim=0))]
        found += [float(a.norm() / b.norm())]
    return found


@pytest.mark.parametrize(
    "execution",
    [
        {"recompute_layers": 1},
        {"recompute_layers": 2},
        {"recompute_mlps": 2},
        {"recompute_layers": 1, "recompute_mlps": 1, "unpacked_layers": 1},
        {"unpacked_layers": 2},
    ],
)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_memory_for_time_changes_nothing(
    tmp_path: Path, gpu: torch.device, kind: str, execution: dict[str, int]
) -> None:
    make = maker(write_shape(tmp_path / "model", kind), tmp_path, gpu)
    examples = some_examples(8)
    settings = {"dtype": "bfloat16", "base": "nf4", "fused": True, "dropout": 0.2}
    _, whole = make(**settings).gradients(examples)
    _, again = make(execution, **settings).gradients(examples)
    compare(again, whole, norm=1e-3, cosine=0.9999)


def test_dropout_is_that_of_peft_for_one_mask_per_group(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks that the fused path draws, given to PEFT's own dropout modules."""
    examples = some_examples(12)
    settings = {"dtype": "bfloat16", "base": "nf4", "dropout": 0.3}
    trainer = make_trainer(fused=True, **settings)
    _, fused = trainer.gradients(examples)
    seeds: list[int] = []
    drawn = kept.Masks.of

    def noted(masks: kept.Masks, group: int) -> kept.Mask:
        mask = drawn(masks, group)
        if mask.seed not in seeds:
            seeds.append(mask.seed)
        return mask

    monkeypatch.setattr(kept.Masks, "of", noted)
    _, again = trainer.gradients(examples)
    compare(again, fused, norm=1e-6, cosine=0.999999)
    plain = make_trainer(**settings)
    for number, block in enumerate(plain.model.get_base_model().model.layers):
        attention, mlp = block.self_attn, block.mlp
        for group, modules in enumerate(
            [
                [attention.q_proj, attention.k_proj, attention.v_proj],
                [attention.o_proj],
                [mlp.gate_proj, mlp.up_proj],
                [mlp.down_proj],
            ]
        ):
            for module in modules:
                module.lora_dropout["default"] = _Masked(seeds[4 * number + group])
    compare(plain.gradients(examples)[1], fused, norm=0.02, cosine=0.998)


class _Masked(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = kernels.dropped(torch.ones_like(x[0], dtype=torch.float32), self._seed, 0.3)
        return x * mask[None].to(x.dtype)


def test_dropout_is_off_in_validation(make_trainer: Make) -> None:
    row = pack(some_examples(4)).to(CUDA)
    losses = []
    for dropout in (0.0, 0.5):
        trainer = make_trainer(fused=True, dtype="bfloat16", dropout=dropout)
        trainer.model.eval()
        with torch.no_grad():
            losses.append(float(trainer.row_loss(row)))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_no_document_sees_another(make_trainer: Make, changed: int) -> None:
    trainer = make_trainer(dtype="bfloat16", base="nf4", fused=True)
    moved = losses_that_moved(trainer.row_loss, some_examples(4), changed, CUDA)
    assert moved == [number == changed for number in range(4)]


def test_a_step_never_waits_for_the_gpu(make_trainer: Make) -> None:
    """torch raises at each operation that would make the host wait; the profiler counts them."""
    trainer = make_trainer(
        {"micro_batch_tokens": 256}, fused=True, dtype="bfloat16", base="nf4", dropout=0.1
    )
    for step in range(3):
        trainer.lifecycle.step(step)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.lifecycle.step(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile() as profiler:
        trainer.lifecycle.step(4)
    names = [event.name for event in profiler.events()]
    waits = [n for n in names if "StreamSynchronize" in n or "DeviceSynchronize" in n]
    # The profiler itself waits once at its end.
    assert len(waits) <= 1, waits
    assert any("LaunchKernel" in name for name in names)


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.2}, {"targets": ("q_proj",)}])
@pytest.mark.parametrize("kind", KINDS)
def test_fp8_products_are_near(
    tmp_path: Path, gpu: torch.device, kind: str, settings: dict[str, object]
) -> None:
    make = maker(write_shape(tmp_path / "model", kind, num_hidden_layers=1), tmp_path, gpu)
    settings = {"dtype": "bfloat16", "base": "nf4", "fused": True, **settings}
    examples = some_examples(12)
    loss, half = make(**settings).gradients(examples)
    small_loss, small = make(fp8=True, **settings).gradients(examples)
    assert small_loss != loss  # it was on
    assert small_loss == pytest.approx(loss, rel=0.02)
    compare(small, half, norm=0.1, cosine=0.97)


def test_sequences_of_32k_tokens(tmp_path: Path, gpu: torch.device) -> None:
    folder = write_shape(tmp_path / "model", "llama", max_position_embeddings=32768)
    ids = some_examples(600)
    long = TrainExample("long", np.concatenate([e.ids for e in ids] * 4)[:32768], 100)
    assert long.tokens == 32768
    make = maker(folder, tmp_path, gpu)
    settings = {"dtype": "bfloat16", "base": "nf4", "batch_size": 1}
    execution = {"micro_batch_tokens": 32768, "recompute_layers": 2}
    _, fused = make(execution, fused=True, **settings).gradients([long])
    _, plain = make(execution, **settings).gradients([long])
    compare(fused, plain, norm=0.02, cosine=0.998)


def test_two_hundred_steps_lose_nothing(tmp_path: Path, gpu: torch.device) -> None:
    """Losses of 200 steps, fused and plain, from the same seed and data."""
    folder = write_shape(tmp_path / "model", "qwen2")
    curves = []
    for fused in (True, False):
        trainer = maker(folder, tmp_path, gpu)(
            fused=fused, dtype="bfloat16", base="nf4", lr=1e-3, epochs=200, max_steps=200
        )
        trainer.lifecycle.run()
        rows = trainer.metrics.rows()
        curves.append([float(row["loss"]) for row in rows if "loss" in row])
        trainer.context.store.delete_prefix("runs/r")
        (tmp_path / "metrics.jsonl").unlink()
    one, other = (torch.tensor(curve) for curve in curves)
    assert len(one) == 200
    assert float(one[-20:].mean()) < 0.8 * float(one[:20].mean())  # it learns
    difference = (one - other).abs() / other
    assert float(difference.mean()) < 0.005
    assert float(difference.max()) < 0.05
