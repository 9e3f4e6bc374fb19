"""How a model thinks: length, doubt, loops and blocks that never end. `report` calls this.

Figures describe, they do not judge: shorter thinking is only better beside an accuracy that holds.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinktune.tasks.evaluate.samples import Parsed

REFLECTION_MARKERS = (
    "wait",
    "hmm+",
    "alternatively",
    "hold on",
    "on second thought",
    "actually, no",
    "let me (?:just )?(?:re-?|double[- ])?(?:check|verify|examine|consider|calculate|think|do)"
    "(?: (?:that|this|it))? again",
    "let me (?:just )?(?:re-?|double[- ])(?:check|verify|examine|consider|calculate|think)",
    "i (?:should|need to|have to) (?:re-?|double[- ])(?:check|verify|examine|consider)",
)
"""Words of second thoughts, as regular expressions; English only, case ignored, whole words."""
REFLECTION = re.compile(rf"\b(?:{'|'.join(REFLECTION_MARKERS)})\b", re.IGNORECASE)

LOOP_WORDS = 20
"""n: the words of a passage that counts as repeated."""
LOOP_TIMES = 3
"""k: how often such a passage stands in a text that loops."""
TAIL_CHARACTERS = 2_000
TAIL_RATIO = 5.0
"""A last stretch that zlib shrinks more than this loops; English prose shrinks 2 to 3 times."""
LOOP_RULE = (
    f"A text loops if some {LOOP_WORDS}-word passage stands in it {LOOP_TIMES} times or more, or "
    f"if zlib shrinks its last {TAIL_CHARACTERS:,} characters more than {TAIL_RATIO:g} times."
)


@dataclass(frozen=True, kw_only=True)
class ThinkingFigures:
    """Of one variant; rates are shares of all samples, from 0 to 1."""

    truncated: float
    """Think parts that never end."""
    empty: float
    """Think parts that are opened and closed with nothing in between."""
    absent: float
    """Answers without any think part."""
    tokens_median: float | None
    """Over the samples with a think part; unfinished ones count with the length they had. None
    where no sample has one."""
    tokens_p95: float | None
    reflections_per_1k: float | None
    """Markers of second thoughts per 1,000 thinking tokens, all samples together."""
    loops: float
    """Texts that repeat themselves, see LOOP_RULE."""
    lengths: tuple[int, ...]
    """Thinking tokens of each sample with a think part."""


def measure(parsed: Sequence[Parsed], count_tokens: Callable[[str], int]) -> ThinkingFigures:
    """Figures of one variant's samples; `count_tokens` counts as the model's tokenizer does."""
    if not parsed:
        raise ValueError("no samples to measure")
    total = len(parsed)
    with_think = [p for p in parsed if p.opened]
    lengths = tuple(count_tokens(p.thinking) if p.thinking else 0 for p in with_think)
    thought = sum(lengths)
    reflections = sum(count_reflections(p.thinking) for p in with_think)
    return ThinkingFigures(
        truncated=sum(not p.closed for p in parsed) / total,
        empty=sum(p.closed and not p.thinking.strip() for p in with_think) / total,
        absent=(total - len(with_think)) / total,
        tokens_median=float(np.median(lengths)) if lengths else None,
        tokens_p95=float(np.percentile(lengths, 95)) if lengths else None,
        reflections_per_1k=1000 * reflections / thought if thought else None,
        loops=sum(loops(f"{p.thinking}\n{p.answer}") for p in parsed) / total,
        lengths=lengths,
    )


def count_reflections(text: str) -> int:
    """Markers of second thoughts in a text."""
    return len(REFLECTION.findall(text))


def loops(text: str) -> bool:
    """Whether a text repeats itself, by LOOP_RULE."""
    words = text.split()
    passages = Counter(zip(*(words[i:] for i in range(LOOP_WORDS)), strict=False))
    if passages and max(passages.values()) >= LOOP_TIMES:
        return True
    tail = text.strip()[-TAIL_CHARACTERS:].encode()
    # A short text has too little in it for its ratio to mean anything.
    return len(tail) >= TAIL_CHARACTERS and len(tail) / len(zlib.compress(tail, 9)) > TAIL_RATIO
