"""Share of the answers that repeat themselves."""

import zlib
from collections import Counter

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged

LOOP_WORDS = 20
"""The words of a passage that counts as repeated."""
LOOP_TIMES = 3
"""How often such a passage stands in a text that loops."""
TAIL_CHARACTERS = 2_000
TAIL_RATIO = 5.0
"""A last stretch that zlib shrinks more than this loops; English prose shrinks 2 to 3 times."""
LOOP_RULE = (
    f"A text loops if some {LOOP_WORDS}-word passage stands in it {LOOP_TIMES} times or more, or "
    f"if zlib shrinks its last {TAIL_CHARACTERS:,} characters more than {TAIL_RATIO:g} times."
)


def loops(text: str) -> bool:
    """Whether a text repeats itself, by LOOP_RULE."""
    words = text.split()
    passages = Counter(zip(*(words[start:] for start in range(LOOP_WORDS)), strict=False))
    if passages and max(passages.values()) >= LOOP_TIMES:
        return True
    tail = text.strip()[-TAIL_CHARACTERS:].encode()
    # A short text has too little in it for its ratio to mean anything.
    return len(tail) >= TAIL_CHARACTERS and len(tail) / len(zlib.compress(tail, 9)) > TAIL_RATIO


def _passes(judged: Judged) -> bool:
    return loops(f"{judged.parsed.thinking}\n{judged.parsed.answer}")


METRIC = share_metric(
    _passes,
    name="loops",
    order=60,
    direction="lower",
    description=Description(label="Loops", rule=LOOP_RULE),
)
