"""The verdicts on samples: their parts, their final-answer lines, their labels, whether they are
right.

Called by the stage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from thinktune.schema.report import Verifier
from thinktune.tasks.evaluate.samples import Judged, JudgeVerdict, LabelVerdict, Question, Sample
from thinktune.tasks.generate.protocol import Likelihood
from thinktune.text.choices import option_letters
from thinktune.text.final_answer import final_answer
from thinktune.text.labels import LabelList
from thinktune.text.think import Parsed, split_generated
from thinktune.text.verifiers import Checked, check_all, checkable, choose_verifier


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How samples are judged, the same for all arms."""

    marker: str | None
    """What the final-answer line starts with."""
    verifier: Verifier
    count_tokens: Callable[[str], int]
    """Counts as the model's tokenizer does."""
    labels: LabelList | None = None
    judge: Mapping[str, JudgeVerdict] = field(default_factory=dict)
    """What a language model says, by the sample's key."""
    likelihoods: Mapping[tuple[str, str], Likelihood] = field(default_factory=dict)
    """Those of reference completions, by arm and question."""
    stop: Callable[[], None] = lambda: None
    """Raises where the work is to end; asked several times a second."""


def verifier_of(wanted: Literal["auto"] | Verifier, questions: Sequence[Question]) -> Verifier:
    """The recipe's verifier; for `auto`, the one that fits the references."""
    if wanted == "auto":
        return choose_verifier([asked.reference for asked in questions])
    return wanted


def judge_all(
    samples: Sequence[Sample], questions: Sequence[Question], rules: Rules
) -> list[Judged]:
    """All verdicts on all samples, in their order."""
    asked = {question.id: question for question in questions}
    parsed = [
        split_generated(sample.text, prompt_opens_think=sample.prompt_opens_think)
        for sample in samples
    ]
    finals = [
        final_answer(each.answer, rules.marker) if rules.marker is not None else None
        for each in parsed
    ]
    checked = _checked(samples, parsed, finals, rules)
    found = []
    for sample, each, final, verdict in zip(samples, parsed, finals, checked, strict=True):
        rules.stop()
        question = asked[sample.question_id]
        found.append(
            Judged(
                sample=sample,
                parsed=each,
                thinking_tokens=rules.count_tokens(each.thinking) if each.thinking else 0,
                final=final,
                has_final_line=final is not None if rules.marker is not None else None,
                extracted=verdict.extracted if verdict else None,
                correct=verdict.correct if verdict else None,
                several=verdict.several if verdict else False,
                group=question.group,
                labels=_labels(each, question, rules.labels),
                judge=rules.judge.get(sample.key),
                likelihood=rules.likelihoods.get((sample.arm, sample.question_id)),
            )
        )
    return found


def _checked(
    samples: Sequence[Sample],
    parsed: Sequence[Parsed],
    finals: Sequence[str | None],
    rules: Rules,
) -> list[Checked | None]:
    """None where the reference cannot be checked."""
    cases: dict[int, tuple[str, str]] = {}
    for number, sample in enumerate(samples):
        reference = sample.reference
        if reference is not None and checkable(reference, rules.verifier):
            cases[number] = (finals[number] or parsed[number].answer, reference)
    letters = option_letters([sample.reference for sample in samples])
    verdicts = check_all(list(cases.values()), rules.verifier, letters=letters, stop=rules.stop)
    by_number = dict(zip(cases, verdicts, strict=True))
    return [by_number.get(number) for number in range(len(samples))]


def _labels(parsed: Parsed, question: Question, labels: LabelList | None) -> LabelVerdict | None:
    if labels is None:
        return None
    expected = labels.read(question.answer)
    if expected.problem is not None or expected.unknown:
        return None
    return LabelVerdict(expected=expected.named, said=labels.read(parsed.answer))
