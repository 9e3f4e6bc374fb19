"""Perplexity of reference completions: its figure and test by hand, what is kept and what not."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from answers import judged, sample
from tiny_tokenizer import tiny_entry

from thinktune.schema.arms import arms_of
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.store import open_store
from thinktune.tasks.evaluate.completions import completions, longest_completion
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.metrics.perplexity import METRIC
from thinktune.tasks.evaluate.perplexity import measure, measures
from thinktune.tasks.evaluate.report.comparing import paired_tests
from thinktune.tasks.evaluate.samples import Judged
from thinktune.tasks.generate.protocol import Completion, Likelihood
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Exchange
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

EXCHANGES = [
    Exchange(question=f"What is {n}?", reasoning="It is so." * n, answer=f"{n}")
    for n in range(1, 6)
]


def answers(*likelihoods: Likelihood | None) -> list[list[Judged]]:
    return [[replace(judged(sample("x")), likelihood=each)] for each in likelihoods]


def test_the_figure_is_that_of_all_tokens() -> None:
    found = answers(Likelihood(-2.0, 4), Likelihood(-30.0, 12))
    scores = METRIC.scores(found)
    assert scores == [pytest.approx(math.exp(0.5)), pytest.approx(math.exp(2.5))]
    assert METRIC.figure(found, scores) == pytest.approx(math.exp(32 / 16))
    nothing = answers(None, None)
    assert METRIC.figure(nothing, METRIC.scores(nothing)) is None


def test_a_clear_gain_is_found_and_an_arm_without_figures_is_left_out() -> None:
    base = answers(*(Likelihood(-20.0 - n % 3, 10) for n in range(40)))
    tuned = answers(*(Likelihood(-10.0 - n % 3, 10) for n in range(40)))
    arms = {"base": base, "asked": answers(*[None] * 40), "tuned": tuned}
    tests = paired_tests(METRIC, arms, EvaluateSpec())
    assert set(tests) == {"base"}
    assert tests["base"].p < 0.001
    gain = math.exp(sum(10 + n % 3 for n in range(40)) / 400)
    loss = math.exp(sum(20 + n % 3 for n in range(40)) / 400)
    assert tests["base"].difference == pytest.approx(gain - loss)


def rows_of(encoder: Encoder) -> list[dict[str, object]]:
    """As prep writes them."""
    renderer = Renderer(tiny_entry(), DataSpec(dataset="x"))
    rows = []
    for number, exchange in enumerate(EXCHANGES):
        rendered = renderer.render(exchange)
        rows.append(
            {
                "id": f"q{number}",
                "pieces": [{"text": p.text, "control": p.control} for p in rendered.prompt],
                "prompt_ids": encoder.prompt_ids(rendered.prompt),
                "reasoning": rendered.reasoning,
                "answer": rendered.answer,
                "reference": rendered.reference,
            }
        )
    return rows


def task(url: str) -> EvaluateTask:
    return EvaluateTask(
        run="r",
        store=url,
        model_name="tiny",
        model=tiny_entry(),
        evaluate=EvaluateSpec(perplexity=True, instruction="Be brief."),
        final_answer=None,
        base="nf4",
    )


class Counted:
    """Says of each text how long it is; counts how often it was asked."""

    name = "counted"

    def __init__(self) -> None:
        self.asked: list[Completion] = []

    def likelihoods(
        self, texts: Sequence[Completion], reporter: Reporter, stop: Stop
    ) -> list[Likelihood]:
        self.asked += texts
        return [Likelihood(-float(len(each.ids)) - each.adapter, len(each.ids)) for each in texts]


def test_completions_are_what_would_be_learned(tokenizer_file: Path) -> None:
    encoder = Encoder(tokenizer_file)
    renderer = Renderer(tiny_entry(), DataSpec(dataset="x"))
    rows = rows_of(encoder)
    found = completions(task("file:///x"), rows, encoder, adapter=True)
    for exchange, each in zip(EXCHANGES, found, strict=True):
        learned = encoder.encode(renderer.render(exchange))
        assert [*each.prompt_ids, *each.ids] == learned.ids
        assert len(each.ids) == learned.reasoning_tokens + learned.answer_tokens
        assert each.adapter
    whole = max(len(each.prompt_ids) + len(each.ids) for each in found)
    assert longest_completion(task("file:///x"), rows, encoder) == whole
    small = task("file:///x").model.model_copy(update={"context": whole})
    own = task("file:///x").model_copy(update={"model": small})
    kept = completions(own, rows, encoder, adapter=False)
    assert 0 < len(kept) < len(rows)
    assert longest_completion(own, rows, encoder) < whole
    rows[2]["prompt_ids"] = [1, 2, 3]
    with pytest.raises(DataInvalid, match="question q2: its prompt has other tokens"):
        completions(task("file:///x"), rows, encoder, adapter=True)


def test_what_was_measured_is_kept_unless_it_is_damaged(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    store = open_store(f"file://{tmp_path}/store")
    encoder, own = Encoder(tokenizer_file), task(store.url)
    made = Manifest.model_validate(
        {"kind": "prep", "run": "r", "attempt": "a", "files": [], "inputs": {},
         "task_sha256": None, "created": "2026"}
    )  # fmt: skip
    facts = PromptFacts(stop_ids=(2,), template_sha256="a" * 64, opens_think=True)
    inputs = Inputs(made, made, tmp_path, facts, rows_of(encoder))
    context = Context(store, "a", Reporter(store, "r", "evaluate", "a"), Stop())
    base, asked, tuned = arms_of(own.evaluate, own.base)
    assert [measures(own, arm) for arm in (base, asked, tuned)] == [True, False, True]

    engine = Counted()
    first = measure(own, context, inputs, engine, base, encoder)  # type: ignore[arg-type]
    assert len(engine.asked) == 5
    assert set(first) == {("base", f"q{n}") for n in range(5)}
    assert measure(own, context, inputs, engine, base, encoder) == first  # type: ignore[arg-type]
    assert len(engine.asked) == 5
    of_tuned = measure(own, context, inputs, engine, tuned, encoder)  # type: ignore[arg-type]
    assert len(engine.asked) == 10
    assert of_tuned["tuned", "q0"] != first["base", "q0"]
    infos = list(store.list("runs/r/evaluate/likelihoods"))
    altered = [store.get(info.key).replace(b"[[-", b"[[-9", 1) for info in infos]
    others = [b"{", b'{"format": 1, "rows": [], "sha256": ""}']
    for damage in (altered, *([other] * len(infos) for other in others)):
        for info, data in zip(infos, damage, strict=True):
            store.put(info.key, data)
        engine.asked.clear()
        assert measure(own, context, inputs, engine, base, encoder) == first  # type: ignore[arg-type]
        assert len(engine.asked) == 5
