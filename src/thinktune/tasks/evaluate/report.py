"""From judged samples to report.json. The stage calls `build_report`.

What report.json holds; rates, accuracies and differences are fractions of 1:

`format`, `run`, `model`, `headline`; `questions` and `judged_questions` (those with a
reference that can be checked), `samples_per_question`; `sampling`; `marker`; `verifier`
(`requested`, `used`, `why_none`);
`variants.<base|tuned>`: `samples`, `presence` and `accuracy` (means over the questions, or
null), `finished`, `tokens_median`, and `thinking` (`thinking.ThinkingFigures` less lengths);
`tests.<accuracy|presence>`: null or `statistics.PairedTest` with `holm_p`;
`flips`: null or `correct_to_wrong`, `wrong_to_correct`;
`thinking_lengths`: `edges`, `base`, `tuned` (counts per bin);
`rules`: sentences that say how each figure came about; `side_by_side`; `versions`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np

from thinktune.schema.recipe import EvaluateSpec
from thinktune.tasks.evaluate import statistics, thinking, verify
from thinktune.tasks.evaluate.samples import VARIANTS, Judged, Question, Sample, Variant
from thinktune.tasks.evaluate.wording import Report, headline

FORMAT = 1
"""Version of report.json's shape."""
BINS = 24
"""Bars of the thinking-length histogram."""

Metric = Literal["accuracy", "presence"]
ByQuestion = dict[str, list[Judged]]
"""A variant's judged samples by the question's id, in the order of the questions."""
Scores = dict[Metric, dict[Variant, list[float]]]
"""Of each question with a verdict, the share of its samples that pass."""


def build_report(
    *,
    run: str,
    model: str,
    spec: EvaluateSpec,
    marker: str | None,
    questions: Sequence[Question],
    samples: Sequence[Sample],
    count_tokens: Callable[[str], int],
    versions: Mapping[str, str],
) -> Report:
    """Judges all samples and puts together what report.json holds.

    Raises ValueError unless every question has samples of both variants.
    """
    verifier = _choose_verifier(spec, questions)
    judged = _by_question([verify.judge(s, marker, verifier) for s in samples], questions)
    measured = {v: _measure(judged[v], count_tokens) for v in VARIANTS}
    scores = _scores(judged)
    tests = _tests(scores, spec.seed)
    report: Report = {
        "format": FORMAT,
        "run": run,
        "model": model,
        "questions": len(questions),
        "judged_questions": len(scores["accuracy"]["base"]),
        "samples_per_question": spec.samples,
        "sampling": _sampling(spec),
        "marker": marker,
        "verifier": _verifier(spec, verifier, questions),
        "variants": {v: _variant(v, judged[v], scores, measured[v]) for v in VARIANTS},
        "tests": tests,
        "flips": _flips(tests["accuracy"]),
        "thinking_lengths": _histogram({v: measured[v].lengths for v in VARIANTS}),
        "rules": _rules(marker, verifier, spec),
        "side_by_side": _side_by_side(questions, judged, spec, count_tokens),
        "versions": dict(sorted(versions.items())),
    }
    return {"headline": headline(report), **report}


def _choose_verifier(spec: EvaluateSpec, questions: Sequence[Question]) -> verify.Verifier:
    if spec.verifier == "auto":
        return verify.choose_verifier([q.reference for q in questions])
    return spec.verifier


def _by_question(
    judged: Sequence[Judged], questions: Sequence[Question]
) -> dict[Variant, ByQuestion]:
    found: dict[Variant, ByQuestion] = {v: defaultdict(list) for v in VARIANTS}
    for j in sorted(judged, key=lambda j: j.sample.sample):
        found[j.sample.variant][j.sample.question_id].append(j)
    ids = [q.id for q in questions]
    for variant in VARIANTS:
        if not ids or set(found[variant]) != set(ids):
            raise ValueError(
                f"{len(found[variant])} {variant} of {len(ids)} questions have samples"
            )
    return {v: {i: found[v][i] for i in ids} for v in VARIANTS}


def _measure(judged: ByQuestion, count_tokens: Callable[[str], int]) -> thinking.ThinkingFigures:
    return thinking.measure([j.parsed for js in judged.values() for j in js], count_tokens)


def _scores(judged: Mapping[Variant, ByQuestion]) -> Scores:
    return {
        "accuracy": {v: _shares(judged[v], lambda j: j.correct) for v in VARIANTS},
        "presence": {v: _shares(judged[v], lambda j: j.present) for v in VARIANTS},
    }


def _shares(judged: ByQuestion, verdict: Callable[[Judged], bool | None]) -> list[float]:
    """Share of each question's samples that pass; questions without a verdict are left out."""
    verdicts = [[verdict(j) for j in js] for js in judged.values()]
    return [sum(map(bool, of)) / len(of) for of in verdicts if None not in of]


def _tests(scores: Scores, seed: int) -> Report:
    tests: Report = {
        name: asdict(statistics.paired_test(of["base"], of["tuned"], seed=seed))
        if of["base"]
        else None
        for name, of in scores.items()
    }
    done = [test for test in tests.values() if test]
    for test, adjusted in zip(done, statistics.holm([t["p_exact"] for t in done]), strict=True):
        test["holm_p"] = adjusted
        test["ci95"] = list(test["ci95"])
    return tests


def _flips(accuracy: Report | None) -> Report | None:
    """Questions whose verdict changed, which are the test's discordant pairs."""
    return accuracy and {"correct_to_wrong": accuracy["b"], "wrong_to_correct": accuracy["c"]}


def _sampling(spec: EvaluateSpec) -> Report:
    return {
        "temperature": spec.temperature,
        "top_p": spec.top_p,
        "max_new_tokens": spec.max_new_tokens,
        "seed": spec.seed,
    }


def _variant(
    variant: Variant,
    judged: ByQuestion,
    scores: Scores,
    measured: thinking.ThinkingFigures,
) -> Report:
    samples = [j.sample for js in judged.values() for j in js]
    means: Report = {
        name: float(np.mean(of[variant])) if of[variant] else None for name, of in scores.items()
    }
    figures = asdict(measured)
    del figures["lengths"]
    return {
        "samples": len(samples),
        **means,
        "finished": sum(s.finished for s in samples) / len(samples),
        "tokens_median": float(np.median([s.tokens for s in samples])),
        "thinking": figures,
    }


def _histogram(lengths: Mapping[Variant, Sequence[int]]) -> Report:
    longest = max((n for of in lengths.values() for n in of), default=0)
    edges = np.linspace(0, max(longest, 1), BINS + 1)
    return {
        "edges": [round(float(e), 1) for e in edges],
        **{v: np.histogram(of, edges)[0].tolist() for v, of in lengths.items()},
    }


def _verifier(spec: EvaluateSpec, used: verify.Verifier, questions: Sequence[Question]) -> Report:
    why_none = _why_none(spec, used, questions)
    return {"requested": spec.verifier, "used": used, "why_none": why_none}


def _why_none(
    spec: EvaluateSpec, verifier: verify.Verifier, questions: Sequence[Question]
) -> str | None:
    if verifier != "none":
        return None
    if spec.verifier == "none":
        return "the recipe asks for no check of the answers"
    if not any(q.reference and q.reference.strip() for q in questions):
        return "the dataset has no reference answers"
    return (
        f"the reference answers are free text, longer than {verify.FEW_WORDS} words or of mixed "
        "kinds, which cannot be compared without a judge"
    )


def _rules(marker: str | None, verifier: verify.Verifier, spec: EvaluateSpec) -> dict[str, str]:
    presence = (
        f"An answer has its final-answer line if, after the think part, some line starts with "
        f"“{marker}” and goes on. A text without a think part is answer as a whole."
        if marker
        else "The recipe names no final-answer marker, so its presence was not measured."
    )
    majority = (
        f"With {spec.samples} answers per question, a question passes where more than half of them "
        "do (a tie fails); means and intervals use all of them. "
        if spec.samples > 1
        else ""
    )
    return {
        "presence": presence,
        "answer": verify.ANSWER_RULE.replace("the marker", f"“{marker}”") if marker else "",
        "accuracy": verify.CHECK_RULES[verifier],
        "tests": "Both models got the same questions, so the tests are paired. The p-value is the "
        "exact McNemar test on the questions that only one of the two passes, two-sided; Holm's "
        "adjustment over the metrics decides what is called significant, at 5 %. " + majority,
        "interval": f"95 % interval of the difference: paired bootstrap over questions, "
        f"{statistics.RESAMPLES:,} resamples, percentiles. Close to the border it can leave out 0 "
        "where the exact test does not reject; the test decides.",
        "mde": "Smallest difference that this many questions would show in 80 % of repetitions, "
        "at the observed share of questions on which the two differ.",
        "thinking": "Thinking tokens are counted over answers with a think part; one cut off "
        "by the limit counts with the length it had. Reflection markers are English words such as "
        "“wait”, “hmm”, “alternatively”, “let me double-check”.",
        "loops": thinking.LOOP_RULE,
        "side_by_side": "Drawn by a hash of the seed and the question's id, whatever the outcome.",
    }


def _side_by_side(
    questions: Sequence[Question],
    judged: Mapping[Variant, ByQuestion],
    spec: EvaluateSpec,
    count_tokens: Callable[[str], int],
) -> list[Report]:
    def draw(question: Question) -> str:
        return hashlib.sha256(f"{spec.seed}:{question.id}".encode()).hexdigest()

    def shown(j: Judged) -> Report:
        return {
            "thinking": j.parsed.thinking,
            "thinking_tokens": count_tokens(j.parsed.thinking) if j.parsed.thinking else 0,
            "opened": j.parsed.opened,
            "closed": j.parsed.closed,
            "answer": j.parsed.answer,
            "final": j.final,
            "present": j.present,
            "correct": j.correct,
            "tokens": j.sample.tokens,
            "finished": j.sample.finished,
        }

    return [
        {
            "id": q.id,
            "question": q.question,
            "reference": q.reference,
            "reference_answer": q.answer,
            **{v: shown(judged[v][q.id][0]) for v in VARIANTS},
        }
        for q in sorted(questions, key=draw)[: spec.side_by_side]
    ]
