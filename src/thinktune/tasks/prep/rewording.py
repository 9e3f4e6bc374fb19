"""Whether two rows ask the same: the rules by which `near_duplicates` checks pairs of them."""

from collections.abc import Sequence

import numpy as np

from thinktune.tasks.prep.question_signature import Signature
from thinktune.text.everyday_words import EVERYDAY
from thinktune.text.question_words import GENERIC

WORDS_PER_CHANGE = 10
WORDS_PER_CHANGE_STRONG = 4
"""Of so many words one may be another; the second where many numbers agree and STRONG_WORDS stand
beside them."""
STRONG_WORDS = 12
SLIP_LETTERS = 4
"""Shorter words have no slips: hat and cat."""


def agree(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether each 1 and 2 written as a digit in one text may stand in the other, as a digit or as
    a word, and neither asks who where the other asks when."""
    for digit, word in ((0, 1), (2, 3)):
        if one[digit] > other[digit] + other[word] or other[digit] > one[digit] + one[word]:
            return False
    begins, anywhere = 4, 5
    unlike = not (one[begins] & other[anywhere] or other[begins] & one[anywhere])
    return not (one[begins] and other[begins] and unlike)


def same_but_for_words(one: Signature, other: Signature) -> bool:
    """Whether the words of two rows of one block say the same, as their numbers are telling."""
    if _slip(one, other) or _everyday(one, other):
        return True
    shorter = min(len(one.words), len(other.words))
    if not one.strong or shorter < STRONG_WORDS:
        return False
    return _changed(one, other, shorter // WORDS_PER_CHANGE_STRONG)


def nearly_same_words(one: Signature, other: Signature, telling: int) -> bool:
    """Whether few enough words differ for the number of words that tell the shorter text."""
    return _changed(one, other, telling // WORDS_PER_CHANGE)


def _changed(one: Signature, other: Signature, allowed: int) -> bool:
    shared = len(np.intersect1d(one.words, other.words, assume_unique=True))
    return max(len(one.words), len(other.words)) - shared <= allowed


def _slip(one: Signature, other: Signature) -> bool:
    """Whether one word differs, and that by one letter added, left out, changed or swapped."""
    ours = set(one.few_words) - set(other.few_words)
    theirs = set(other.few_words) - set(one.few_words)
    if len(ours) != 1 or len(theirs) != 1:
        return False
    short, long = sorted((ours.pop(), theirs.pop()), key=len)
    if len(short) < SLIP_LETTERS or len(long) - len(short) > 1:
        return False
    start = next((i for i, letter in enumerate(short) if letter != long[i]), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    swapped = short[start : start + 2] == long[start : start + 2][::-1]
    return short[start + 1 :] == long[start + 1 :] or (
        swapped and short[start + 2 :] == long[start + 2 :]
    )


def _everyday(one: Signature, other: Signature) -> bool:
    """Whether at least half of all words agree and the others are everyday ones, or generic ones
    that only one of the two has: months do not become weeks."""
    ours, theirs = set(one.few_words), set(other.few_words)
    ours, theirs, shared = ours - theirs, theirs - ours, ours & theirs
    return (
        bool(shared)  # none where a text has more words than are kept
        and len(shared) >= len(ours) + len(theirs)
        and (ours | theirs) <= EVERYDAY | GENERIC
        and not (ours & GENERIC and theirs & GENERIC)
    )
