"""The samples inside report.html: all of them, compressed, as its script unpacks them.

Called by `page`. A page that would become too large holds the beginning and end of long texts.
"""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from thinktune.schema.report import Report
from thinktune.tasks.evaluate.report.build import shown
from thinktune.tasks.evaluate.samples import Judged, Question

MOST_BYTES = 12 * 2**20
"""Of the compressed samples; base64 makes a third more of them."""
SAMPLED = 16
"""One question of so many is compressed to find out how large all of them will be."""
CLIPS = (None, 8_000, 4_000, 2_000, 1_000, 400)
"""Characters of the longest text, tried one after the other until the page is small enough."""


def pack_samples(
    report: Report, questions: Sequence[Question], judged: Sequence[Judged]
) -> tuple[str, int | None]:
    """The samples as base64 of gzip of JSON, and to how many characters texts were shortened."""
    found: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for each in sorted(judged, key=lambda each: each.sample.sample):
        found[each.sample.question_id, each.sample.arm].append(each)
    for clip in CLIPS:
        # A part of the questions tells the size of all of them, and compressing takes long.
        part = _packed(report, questions[::SAMPLED], found, clip)
        if len(part) * SAMPLED <= MOST_BYTES or clip == CLIPS[-1]:
            break
    return base64.b64encode(_packed(report, questions, found, clip)).decode(), clip


def _packed(
    report: Report,
    questions: Sequence[Question],
    found: Mapping[tuple[str, str], Sequence[Judged]],
    clip: int | None,
) -> bytes:
    rows = [
        {
            "id": asked.id,
            "question": _clipped(asked.question, clip),
            "reference": _clipped(asked.reference or "", clip) or None,
            "group": asked.group,
            "said": [[_said(each, clip) for each in found[asked.id, arm]] for arm in report.arms],
        }
        for asked in questions
    ]
    names = [arm.label for arm in report.arms.values()]
    plain = {"arms": list(report.arms), "labels": names, "questions": rows}
    # Half characters, which a model can write, are no UTF-8; JSON writes them as escapes.
    return gzip.compress(json.dumps(plain).encode(), compresslevel=6, mtime=0)


def _said(judged: Judged, clip: int | None) -> dict[str, Any]:
    answer = shown(judged)
    correct = answer.correct
    if correct is None and judged.judge is not None:
        correct = judged.judge.correct
    return {
        "thinking": _clipped(answer.thinking, clip),
        "thinkingTokens": answer.thinking_tokens,
        "opened": answer.opened,
        "closed": answer.closed,
        "answer": _clipped(answer.answer, clip),
        "extracted": None if answer.extracted is None else _clipped(answer.extracted, 300),
        "line": answer.has_final_line,
        "correct": correct,
        "rating": judged.judge.rating if judged.judge is not None else None,
        "tokens": answer.tokens,
        "finished": answer.finished,
    }


def _clipped(text: str, clip: int | None) -> str:
    if clip is None or len(text) <= clip:
        return text
    head = clip * 2 // 3
    left = f" … {len(text) - clip:,} characters left out … "
    return text[:head] + left + text[len(text) - (clip - head) :]
