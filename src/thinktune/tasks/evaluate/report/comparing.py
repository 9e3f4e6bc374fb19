"""Answers by arm and question, and the tuned model's tests against the other arms on one metric.

Called by `build` and `benchmarks`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import BASE, TUNED, PairedTest
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.metrics.registry import Answers, Metric
from thinktune.tasks.evaluate.samples import Judged, Question

ByQuestion = dict[str, list[Judged]]
"""An arm's judged samples by the question's id, in the order of the questions."""


def by_question(
    judged: Sequence[Judged], questions: Sequence[Question], arms: Sequence[str]
) -> dict[str, ByQuestion]:
    """The samples of each arm. Raises ValueError unless every question has some of every arm."""
    found: dict[str, ByQuestion] = {arm: defaultdict(list) for arm in arms}
    for each in sorted(judged, key=lambda judged: judged.sample.sample):
        found[each.sample.arm][each.sample.question_id].append(each)
    ids = [asked.id for asked in questions]
    for arm in arms:
        if not ids or set(found[arm]) != set(ids):
            raise ValueError(f"{len(found[arm])} {arm} of {len(ids)} questions have samples")
    return {arm: {id_: found[arm][id_] for id_ in ids} for arm in arms}


def paired_tests(
    metric: Metric,
    answers: Mapping[str, Sequence[Answers]],
    spec: EvaluateSpec,
    tuned: str = TUNED,
) -> dict[str, PairedTest]:
    """One arm, the tuned model as a rule, against every other one."""
    found = {}
    seed = spec.seed
    of_tuned = [metric.contributions(each) for each in answers[tuned]]
    for arm, of_arm in answers.items():
        of_other = [metric.contributions(each) for each in of_arm]
        pairs = [
            (other, own)
            for other, own in zip(of_other, of_tuned, strict=True)
            if other is not None and own is not None
        ]
        if arm == tuned or not pairs:
            continue
        # With several answers to a question, a majority can move one way and the mean another.
        if metric.mcnemar and spec.samples == 1:
            others, tuneds = [other[0] for other, _ in pairs], [own[0] for _, own in pairs]
            found[arm] = statistics.mcnemar_test(others, tuneds, seed=seed)
        else:
            other_parts = np.asarray([other for other, _ in pairs], dtype=float)
            tuned_parts = np.asarray([own for _, own in pairs], dtype=float)
            aggregate = metric.aggregate
            found[arm] = statistics.permutation_test(other_parts, tuned_parts, aggregate, seed=seed)
    return found


def precision_tests(
    metric: Metric, answers: Mapping[str, Sequence[Answers]], spec: EvaluateSpec
) -> dict[str, PairedTest]:
    """The tuned model at other precisions against the base, for the gate."""
    if not metric.tested:
        return {}
    others = [arm for arm in answers if arm.startswith(f"{TUNED}-")]
    pairs = {arm: {BASE: answers[BASE], arm: answers[arm]} for arm in others}
    found = {arm: paired_tests(metric, pair, spec, arm) for arm, pair in pairs.items()}
    return {arm: tests[BASE] for arm, tests in found.items() if BASE in tests}
