"""The fused path's whole backward pass without a GPU: gradients of plain PEFT, in every variant.

Triton's interpreter runs the kernels in float16. Two things have no CPU form and get one here: the
flash kernel (attention document by document, by autograd) and products of float16 into float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from dense import KINDS, write_shape
from tiny import VOCABULARY, tiny_entry
from torch.nn.functional import scaled_dot_product_attention
from trainer import CPU, Make, losses_that_moved, maker

from thinktune.schema.recipe import TrainSpec
from thinktune.schema.task import Execution
from thinktune.tasks.model.adapter import add_adapter, trainable
from thinktune.tasks.model.attention import choose_attention
from thinktune.tasks.model.base import Base
from thinktune.tasks.model.fused import layer, weights
from thinktune.tasks.model.fused.decoder import FusedLoss
from thinktune.tasks.model.packed_row import PackedRow
from thinktune.tasks.model.parallel_load import load_in_parallel
from thinktune.tasks.train.sft.batches import pack
from thinktune.tasks.train.sft.examples import TrainExample

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
Gradients = dict[str, torch.Tensor]


def few(count: int) -> list[TrainExample]:
    """Short ones: the interpreter takes a millisecond per program."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(3, VOCABULARY, 4 + 2 * n).astype(np.int32) for n in range(count)]
    return [TrainExample(f"e{n}", each, 1 + n) for n, each in enumerate(ids)]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row: PackedRow,
    scale: float,
    sliding_window: int | None,
) -> torch.Tensor:
    lengths = list(row.lengths)
    parts = []
    for q, k, v in zip(*(x.float().split(lengths) for x in (query, key, value)), strict=True):
        band = torch.ones(len(q), len(q), dtype=torch.bool).tril()
        if sliding_window is not None:
            band = band.triu(1 - sliding_window)
        heads = (x.transpose(0, 1) for x in (q, k, v))
        out = scaled_dot_product_attention(*heads, attn_mask=band, scale=scale, enable_gqa=True)
        parts.append(out.transpose(0, 1).flatten(-2))
    return torch.cat(parts).to(query.dtype)


def forward(*inputs: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    return attention(*inputs), ()


def backward(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
        again = attention(*leaves, *rest)
    return torch.autograd.grad(again, leaves, d_out)


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "attend", forward)
    monkeypatch.setattr(layer, "attend_back", backward)
    monkeypatch.setattr(weights, "product_in_fp32", lambda a, b: a.float() @ b.float())


def fused_gradients(
    make: Make, examples: list[TrainExample], execution: dict[str, int], **train: Any
) -> tuple[float, Gradients]:
    trainer = make(dtype="float16", **train)
    causal = trainer.model.get_base_model()
    settings = Execution(**execution)
    loss = FusedLoss(causal, settings, torch.float16, dropout=train.get("dropout", 0.0), fp8=False)
    trainer.objective._row_loss = loss
    return trainer.gradients(examples)


def hold(
    make: Make, execution: dict[str, int] | None = None, **train: Any
) -> tuple[Gradients, Gradients]:
    examples = few(4)
    exact_loss, exact = make(**{**train, "dtype": "float32"}).gradients(examples)
    loss, fused = fused_gradients(make, examples, execution or {}, **train)
    assert loss == pytest.approx(exact_loss, rel=2e-3)
    for name, wanted in exact.items():
        found = fused[name].double().flatten()
        cosine = torch.nn.functional.cosine_similarity(found, wanted.double().flatten(), dim=0)
        assert float(cosine) > 0.999, name
        assert float(found.norm() / wanted.double().norm()) == pytest.approx(1, abs=0.01), name
    return fused, exact


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["nf4", "16bit"])
def test_gradients_of_plain_peft(tmp_path: Path, kind: str, base: str) -> None:
    shape = {**SHAPE, "sliding_window": 8} if kind == "mistral" else SHAPE
    hold(maker(write_shape(tmp_path / "model", kind, **shape), tmp_path), base=base)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 5},
        {"targets": "mlp"},
        {"targets": ("q_proj", "v_proj", "down_proj")},
        {"targets": ("down_proj",)},
        {"rslora": True},
    ],
)
def test_any_subset_and_rank(tmp_path: Path, settings: dict[str, object]) -> None:
    biased = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    hold(maker(write_shape(tmp_path / "model", "llama", **SHAPE, **biased), tmp_path), **settings)


@pytest.mark.parametrize(
    ("kind", "execution"),
    [
        ("qwen3", {"recompute_layers": 2}),
        ("llama", {"recompute_mlps": 2}),
        ("llama", {"recompute_layers": 1, "recompute_mlps": 1, "unpacked_layers": 2}),
    ],
)
def test_memory_for_time_changes_nothing(
    tmp_path: Path, kind: str, execution: dict[str, int]
) -> None:
    make = maker(write_shape(tmp_path / "model", kind, **SHAPE), tmp_path)
    examples = few(4)
    settings = {"base": "nf4", "dropout": 0.2}
    _, kept = fused_gradients(make, examples, {}, **settings)
    _, again = fused_gradients(make, examples, execution, **settings)
    for name, wanted in kept.items():
        assert torch.allclose(again[name], wanted, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_no_document_sees_another(tmp_path: Path, changed: int) -> None:
    make = maker(write_shape(tmp_path / "model", "llama", **SHAPE), tmp_path)
    model = make(dtype="float16").model.get_base_model()
    loss = FusedLoss(model, Execution(), torch.float16, dropout=0.0, fp8=False)
    moved = losses_that_moved(loss, few(4), changed, CPU)
    assert moved == [number == changed for number in range(4)]


def test_nothing_else_learns(tmp_path: Path) -> None:
    make = maker(write_shape(tmp_path / "model", "llama", **SHAPE), tmp_path)
    trainer = make(dtype="float16")
    model = trainer.model.get_base_model()
    FusedLoss(model, Execution(), torch.float16, dropout=0.0, fp8=False)(pack(few(2))).backward()
    learnt = {name for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert learnt == set(trainable(trainer.model))


@pytest.mark.parametrize("base", ["nf4", "16bit"])
@pytest.mark.parametrize(
    "execution", [{}, {"recompute_layers": 2, "recompute_mlps": 1}], ids=["kept", "recomputed"]
)
def test_a_base_divided_among_ranks_changes_no_bit(
    base: Base, execution: dict[str, int], tmp_path: Path
) -> None:
    """More layers than slots, twice over: the second row starts where the first one ended."""
    folder = write_shape(tmp_path, "qwen2", num_hidden_layers=5, **SHAPE)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found = [
            gradients_of(folder, base, Execution(**execution), divided=divided)
            for divided in (False, True)
        ]
    finally:
        dist.destroy_process_group()
    whole, parts = found
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert gradient.any(), name
        assert torch.equal(gradient, parts[name]), name


def gradients_of(folder: Path, base: Base, execution: Execution, *, divided: bool) -> Gradients:
    spec = TrainSpec(batch_size=1, base=base)
    attention_form = choose_attention(CPU, torch.float16, SHAPE["head_dim"])
    model, sharded = load_in_parallel(
        folder, base, torch.float16, CPU, attention=attention_form, divided=divided
    )
    assert (sharded is not None) == divided
    wrapped = add_adapter(model, spec, tiny_entry())
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainable(wrapped).items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.05)
    causal = wrapped.get_base_model()
    loss = FusedLoss(causal, execution, torch.float16, dropout=0.0, fp8=False, sharded=sharded)
    for _ in range(2):
        loss(pack(few(3))).backward()
    return {name: p.grad for name, p in trainable(wrapped).items() if p.grad is not None}
