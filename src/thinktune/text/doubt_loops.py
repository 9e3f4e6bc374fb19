"""Texts that go round in circles: the one definition of a loop.

Evaluation reports the share of answers that loop, and prep drops rows whose reasoning does: prep
calls `loops(f"{reasoning}\n{answer}")` for each row, where the recipe asks for that filter, and
prints `LOOP_RULE` beside the count.
"""

import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

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
_SLOTS_PER_WORD = 4
_MODULUS = (1 << 61) - 1
_BASE = 1_000_003


def loops(text: str) -> bool:
    """Whether a text repeats itself, by LOOP_RULE. Time is linear in its length; memory too."""
    words = text.split()
    if _repeats(words):
        return True
    tail = text.strip()[-TAIL_CHARACTERS:].encode("utf-8", "surrogatepass")
    # A short text has too little in it for its ratio to mean anything.
    return len(tail) >= TAIL_CHARACTERS and len(tail) / len(zlib.compress(tail, 9)) > TAIL_RATIO


def _repeats(words: Sequence[str]) -> bool:
    """Whether some passage stands there often enough.

    Passages are first counted by a rolling hash, in one byte each, and only those whose count
    suffices are compared: as tuples, the passages of a 10 MB text would take some 700 MB.
    """
    counts = bytearray(_SLOTS_PER_WORD * len(words) + 1)
    for slot in _slots(words, len(counts)):
        if counts[slot] < LOOP_TIMES:
            counts[slot] += 1
    passages: Counter[tuple[str, ...]] = Counter()
    for start, slot in enumerate(_slots(words, len(counts))):
        if counts[slot] == LOOP_TIMES:
            passage = tuple(words[start : start + LOOP_WORDS])
            passages[passage] += 1
            if passages[passage] == LOOP_TIMES:
                return True
    return False


def _slots(words: Sequence[str], size: int) -> Iterator[int]:
    """A number below `size` for each passage, the same for equal ones."""
    digests = array("q", map(hash, words))
    rolling = 0
    for digest in digests[: LOOP_WORDS - 1]:
        rolling = (rolling * _BASE + digest) % _MODULUS
    leaving = pow(_BASE, LOOP_WORDS - 1, _MODULUS)
    for i in range(LOOP_WORDS - 1, len(digests)):
        rolling = (rolling * _BASE + digests[i]) % _MODULUS
        yield rolling % size
        rolling = (rolling - digests[i - LOOP_WORDS + 1] * leaving) % _MODULUS
