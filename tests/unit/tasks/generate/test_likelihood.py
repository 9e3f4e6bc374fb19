"""How likely the tiny model finds given texts, against a loop written by hand."""

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.schema.errors import Preempted
from thinktune.store import open_store
from thinktune.tasks.generate import likelihood
from thinktune.tasks.generate.likelihood import scored_batches
from thinktune.tasks.generate.protocol import Completion
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

TEXTS = [
    ((40, 41, 42, 43), (60, 61, 2)),
    ((50, 51), (70, 71, 72, 73, 74, 75, 76, 77, 2)),
    ((44,), (2,)),
    (tuple(range(30, 60)), tuple(range(60, 99))),
]


def asked(*, adapter: bool) -> list[Completion]:
    return [Completion(f"{adapter}{n}", *text, adapter) for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    torch.manual_seed(1)
    targets = list(tiny_entry().lora_targets)
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    found = Reporter(open_store(f"file://{tmp_path}"), "r", "evaluate", "a")
    found.phase("perplexity", 99, "completions")
    return found


@pytest.fixture
def engine(tiny_folder: Path, adapter: Path) -> TransformersEngine:
    return TransformersEngine(
        tiny_folder, adapter, entry=tiny_entry(), base="16bit", dtype="float32"
    )


def found(engine: TransformersEngine, texts: list[Completion], reporter: Reporter) -> list[float]:
    measured = engine.likelihoods(texts, reporter, Stop())
    assert [each.tokens for each in measured] == [len(text.ids) for text in texts]
    return [each.log_probability for each in measured]


def by_hand(
    folder: Path, adapter: Path | None, prompt: tuple[int, ...], ids: tuple[int, ...]
) -> float:
    """One token after the other, without batch and padding."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    total, known = 0.0, list(prompt)
    for token in ids:
        with torch.inference_mode():
            logits = model(torch.tensor([known])).logits[0, -1]
        total += math.log(torch.softmax(logits.double(), dim=0)[token].item())
        known.append(token)
    return total


@pytest.mark.parametrize("tuned", [False, True])
def test_it_is_what_a_loop_gives(
    engine: TransformersEngine, tiny_folder: Path, adapter: Path, reporter: Reporter, tuned: bool
) -> None:
    measured = found(engine, asked(adapter=tuned), reporter)
    expected = [by_hand(tiny_folder, adapter if tuned else None, *text) for text in TEXTS[:3]]
    assert measured[:3] == pytest.approx(expected, rel=1e-5)


def test_base_and_tuned_in_one_call(engine: TransformersEngine, reporter: Reporter) -> None:
    base = found(engine, asked(adapter=False), reporter)
    both = found(engine, [*asked(adapter=True), *asked(adapter=False)], reporter)
    assert both[4:] == pytest.approx(base, rel=1e-6)
    assert both[:4] != pytest.approx(both[4:], rel=1e-3)


def test_neither_padding_nor_pieces_change_it(
    engine: TransformersEngine, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(scored_batches(asked(adapter=False))) == 1
    together = found(engine, asked(adapter=False), reporter)
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 1)
    monkeypatch.setattr(likelihood, "CHUNK_TOKENS", 4)
    assert len(scored_batches(asked(adapter=False))) == len(TEXTS)
    assert found(engine, asked(adapter=False), reporter) == pytest.approx(together, rel=1e-5)


def test_batches_are_bounded_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 40)
    texts = [Completion(f"q{n}", (1,) * (n + 1), (2,) * 3, n % 2 == 0) for n in range(12)]
    batches = scored_batches(texts)
    assert sorted(each.id for batch in batches for each in batch) == sorted(t.id for t in texts)
    for batch in batches:
        assert len({each.adapter for each in batch}) == 1
        longest = max(len(each.prompt_ids) + len(each.ids) for each in batch)
        assert len(batch) * longest <= 40
    assert scored_batches([]) == []


def test_it_stops_when_it_is_asked_to(engine: TransformersEngine, reporter: Reporter) -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(Preempted):
        engine.likelihoods(asked(adapter=False), reporter, stop)
    assert engine.likelihoods([], reporter, Stop()) == []
