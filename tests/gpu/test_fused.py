"""The fused path against plain transformers + PEFT: same loss, same gradients, every variant."""

import pytest
import torch
from trainer import Make, some_examples

from thinktune.tasks.train.batches import pack
from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.fused.decoder import FusedLoss
from thinktune.tasks.train.fused.head import HeadLoss
from thinktune.tasks.train.fused.kernels import RmsNorm, SwiGlu

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


@pytest.mark.parametrize(
    "settings",
    [
        {"base": "nf4"},
        {"base": "16bit"},
        {"base": "nf4", "rslora": True, "rank": 8},
        {"base": "nf4", "targets": "attention"},
        {"base": "nf4", "targets": "mlp"},
        {"base": "nf4", "targets": ("q_proj", "v_proj", "down_proj")},
        {"base": "nf4", "dtype": "float16"},
    ],
)
def test_gradients_of_the_plain_path(make_trainer: Make, settings: dict[str, object]) -> None:
    examples = some_examples(12)
    settings = {"dtype": "bfloat16", **settings}
    # Against fp32 of the same weights, and no further from it than the plain path is.
    loss, gradients = make_trainer(**{**settings, "dtype": "float32"}).gradients(examples)
    _, plain = make_trainer(**settings).gradients(examples)
    trainer = make_trainer(fused=True, **settings)
    assert isinstance(trainer.row_loss, FusedLoss)
    fused_loss, fused = trainer.gradients(examples)
    assert fused_loss == pytest.approx(loss, rel=5e-3)
    assert distance(fused, gradients) < max(1.5 * distance(plain, gradients), 0.02)


def test_a_real_shape_is_as_close_as_the_plain_path(make_trainer: Make) -> None:
    """Cosine and norm of every parameter against the plain path, the documents of a real step."""
    examples = some_examples(200)
    settings = {"dtype": "bfloat16", "base": "nf4"}
    _, plain = make_trainer(**settings).gradients(examples)
    trainer = make_trainer({"micro_batch_tokens": 16384}, fused=True, **settings)
    assert isinstance(trainer.row_loss, FusedLoss)
    compare(trainer.gradients(examples)[1], plain, norm=0.02, cosine=0.998)


def test_recomputed_layers_change_nothing(make_trainer: Make) -> None:
    examples = some_examples(8)
    settings = {"dtype": "bfloat16", "base": "nf4", "fused": True}
    _, kept = make_trainer(**settings).gradients(examples)
    _, again = make_trainer({"recompute_layers": 1}, **settings).gradients(examples)
    compare(again, kept, norm=1e-3, cosine=0.99999)


def test_no_document_sees_another(make_trainer: Make) -> None:
    trainer = make_trainer(dtype="bfloat16", base="nf4", fused=True)
    examples = some_examples(4)
    other = TrainExample("x", some_examples(9)[8].ids, 1)
    silent = [TrainExample(e.id, e.ids, e.tokens - 1) for e in examples]
    with torch.no_grad():
        before = float(trainer.row_loss(pack([*silent[:3]]).to(CUDA)))
        # The last document changes and has no target of its own but one.
        first = float(trainer.row_loss(pack([*silent[:3], silent[3]]).to(CUDA)))
        alone = float(trainer.row_loss(pack([silent[3]]).to(CUDA)))
        changed = float(trainer.row_loss(pack([*silent[:3], other]).to(CUDA)))
        other_alone = float(trainer.row_loss(pack([other]).to(CUDA)))
    assert first - alone == pytest.approx(before, rel=1e-2)
    assert changed - other_alone == pytest.approx(before, rel=5e-2)


def test_dropout_takes_the_plain_path(
    make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(dtype="bfloat16", dropout=0.1, fused=True)
    assert "plain path (LoRA dropout" in capsys.readouterr().out


@pytest.mark.parametrize("width", [64, 1000, 5120])
def test_norm_kernel(width: int) -> None:
    x = torch.randn(33, width, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    w = torch.randn(width, device=CUDA, dtype=torch.bfloat16)
    exact = x.detach().double().requires_grad_()
    wanted = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6) * w.double()
    upstream = torch.randn_like(x)
    y = RmsNorm.apply(x, w, 1e-6)
    y.backward(upstream)
    wanted.backward(upstream.double())
    assert torch.allclose(y.double(), wanted, rtol=2e-2, atol=2e-2)
    assert relative(x.grad, exact.grad) < 1e-2


@pytest.mark.parametrize("width", [96, 8960])
def test_swiglu_kernel(width: int) -> None:
    x = torch.randn(17, 2 * width, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    gate, up = exact.chunk(2, dim=-1)
    wanted = torch.nn.functional.silu(gate) * up
    upstream = torch.randn(17, width, device=CUDA, dtype=torch.bfloat16)
    y = SwiGlu.apply(x)
    y.backward(upstream)
    wanted.backward(upstream.double())
    assert relative(y, wanted) < 1e-2
    assert relative(x.grad, exact.grad) < 1e-2


@pytest.mark.parametrize("words", [320, 50_000, 151_936])
def test_head_kernel(words: int) -> None:
    states = torch.randn(70, 64, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(words, 64, device=CUDA, dtype=torch.bfloat16) * 0.1
    targets = torch.randint(0, words, (70,), device=CUDA)
    exact = states.detach().double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact @ weight.double().T, targets, reduction="sum")
    loss = HeadLoss.apply(states, weight, targets)
    loss.backward()
    wanted.backward()
    assert float(loss) == pytest.approx(float(wanted), rel=5e-3)
    assert relative(states.grad, exact.grad) < 2e-2


def relative(one: torch.Tensor | None, other: torch.Tensor | None) -> float:
    assert one is not None
    assert other is not None
    return float((one.double() - other.double()).norm() / other.double().norm())
