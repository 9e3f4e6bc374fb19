"""Questions that are rewordings of each other, so that a group stays on one side of the split.

How prep calls it: a worker makes `signature(Asked(turns, options, system))` of each row that is
kept; one process adds the signatures, in any order, to a `NearDuplicates` and hands its
`groups().keys` to `selection.split` in place of question keys. Duplicates to be *removed* are
found by `rows.question_key`, not here: rows that only look alike are all kept, on one side.

What is asked is the numbers as values, arithmetic signs, how often it is negated, and the words
that carry meaning (`text.question_content`). Two rows are joined if

1. all of that is equal, in whatever order and wording;
2. the numbers agree and are not small (`Content.evidence`), and one word differs by one letter, a
   slip; or half of all words agree and those that don't are everyday words, such as hats and caps;
3. numbers and negations agree, and of the words of a long text at most one in WORDS_PER_CHANGE
   was changed on each side (one in WORDS_PER_CHANGE_STRONG where many numbers agree). Such pairs
   are found by MinHash over the words and LSH, then checked word by word;
4. one is a beginning of the other: a conversation of fewer turns, the question without its options;
5. they share a whole turn that says enough to be asked by itself, if few rows do.

The system prompt is left out, unless nothing else says anything: the same question under another
system prompt is another question for removal, since its answer may differ, but its answer must
not be learnt where the other is tested. Words that more than one row in ten has say nothing of
two rows being the same in (3), so that a long instruction before each question joins no rows.
Results depend neither on the order of rows nor on the number of workers.
"""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.prep.minhash import band_keys
from thinktune.tasks.prep.question_signature import Asked as Asked
from thinktune.tasks.prep.question_signature import Signature, unpacked
from thinktune.tasks.prep.question_signature import signature as signature
from thinktune.text.everyday_words import EVERYDAY
from thinktune.text.question_words import GENERIC

LONG_WORDS = 20
"""A text of so many words that carry meaning is long."""
WORDS_PER_CHANGE = 10
WORDS_PER_CHANGE_STRONG = 4
STRONG_WORDS = 12
PART_ROWS = 20
PART_SHARE = 0.01
"""A turn that more rows share, in number and as a share of all, is an instruction, no question."""
FREQUENT_SHARE = 0.1
FREQUENT_ROWS = 200
"""Among fewer rows no word is frequent."""
MAX_COMPARED = 100
"""More rows with the same numbers, or in one LSH bucket, are a template: not every pair of them is
compared."""
SLIP_LETTERS = 4
"""Shorter words have no slips: mg and kg."""
BANDS = 21
VALUES_PER_BAND = 6
"""Two texts that share 82% of their words, the fewest that are joined, meet in a
band with p = 0.999, two that share 10% with p = 2e-5."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Groups:
    """Which rows belong together."""

    keys: list[str]
    """For each row, in the order added, the key of its group."""
    joined: int
    """Rows that are not alone in their group."""
    largest: int
    """Rows of the largest group. A large share of all rows is worth a look."""
    examples: list[tuple[int, int]]
    """The first two rows of each group that has two, for eyes: they ask the same."""


class NearDuplicates:
    """Collects the signatures of all rows, then groups them. Holds each signature once."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._rows = array("L")

    def add(self, packed: bytes) -> None:
        """Takes the next row's signature."""
        self._rows.append(self._known.setdefault(packed, len(self._known)))

    def groups(self) -> Groups:
        """Groups all rows added so far."""
        # In an order of their own, not in the order added.
        profiles = sorted(self._known)
        place = {self._known[packed]: position for position, packed in enumerate(profiles)}
        linked = _Links(len(profiles))
        _link_equal(profiles, linked)
        _link_same_numbers(profiles, linked)
        _link_long(profiles, linked)
        _link_parts(profiles, linked)
        members = [place[profile] for profile in self._rows]
        return _result(profiles, linked, members)


class _Links:
    """Union-find; a set is named by its smallest member."""

    def __init__(self, size: int) -> None:
        self._parent = array("L", range(size))

    def root(self, one: int) -> int:
        parent = self._parent
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        self._parent[max(one, other)] = min(one, other)


def _link_equal(profiles: Sequence[bytes], linked: _Links) -> None:
    """The same numbers, signs, negations and words."""
    equal: dict[int, dict[tuple[int, ...], int]] = defaultdict(dict)
    for position, packed in enumerate(profiles):
        asks = unpacked(packed)
        first = equal[asks.exact].setdefault(asks.loose, position)
        linked.join(first, position)
    for kinds in equal.values():
        if len(kinds) > 1:
            for (one, first), (other, second) in _pairs(sorted(kinds.items())):
                if _agree(one, other):
                    linked.join(first, second)


def _agree(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether each 1 and 2 written as a digit in one text may stand in the other, as a digit or as
    a word, and neither asks who where the other asks when."""
    for digit, word in ((0, 1), (2, 3)):
        if one[digit] > other[digit] + other[word] or other[digit] > one[digit] + one[word]:
            return False
    begins, anywhere = 4, 5
    unlike = not (one[begins] & other[anywhere] or other[begins] & one[anywhere])
    return not (one[begins] and other[begins] and unlike)


def _link_same_numbers(profiles: Sequence[bytes], linked: _Links) -> None:
    """Slips of one letter, everyday words exchanged, and long texts with many equal numbers."""
    blocks: dict[int, list[Signature]] = defaultdict(list)
    positions: dict[int, list[int]] = defaultdict(list)
    for position, packed in enumerate(profiles):
        if linked.root(position) == position and (asks := unpacked(packed)).evidence:
            blocks[asks.block].append(asks)
            positions[asks.block].append(position)
    for block, members in blocks.items():
        if len(members) > MAX_COMPARED:
            continue
        for (first, one), (second, other) in _pairs(zip(positions[block], members, strict=True)):
            if not _agree(one.loose, other.loose):
                continue
            strong = one.strong and min(len(one.words), len(other.words)) >= STRONG_WORDS
            if (
                _slip(one, other)
                or _everyday(one, other)
                or (strong and _changed(one, other, WORDS_PER_CHANGE_STRONG))
            ):
                linked.join(first, second)


def _link_long(profiles: Sequence[bytes], linked: _Links) -> None:
    """Long texts that share nearly all of their words."""
    positions = [one for one in range(len(profiles)) if linked.root(one) == one]
    words = [unpacked(profiles[position]).words for position in positions]
    telling = _telling(words)
    long = [i for i, told in enumerate(telling) if len(told) >= LONG_WORDS]
    blocks = np.array([unpacked(profiles[positions[i]]).block for i in long], np.uint64)
    keys = band_keys([telling[i] for i in long], BANDS, VALUES_PER_BAND) ^ blocks[:, None]
    for first, second in _candidates(keys):
        here, there = positions[long[first]], positions[long[second]]
        if linked.root(here) == linked.root(there):
            continue
        one, other = unpacked(profiles[here]), unpacked(profiles[there])
        told = min(len(telling[long[first]]), len(telling[long[second]]))
        alike = one.block == other.block and _agree(one.loose, other.loose)
        if alike and _changed(one, other, WORDS_PER_CHANGE, told):
            linked.join(here, there)


def _link_parts(profiles: Sequence[bytes], linked: _Links) -> None:
    """Rows that begin as another row is, and rows that share a turn that can stand alone."""
    whole: dict[int, int] = {}
    sharing: dict[int, list[int]] = defaultdict(list)
    for position, packed in enumerate(profiles):
        asks = unpacked(packed)
        linked.join(whole.setdefault(asks.beginnings[-1], position), position)
        for part in asks.parts:
            sharing[part].append(position)
    for position, packed in enumerate(profiles):
        for beginning in unpacked(packed).beginnings[:-1]:
            if beginning in whole:
                linked.join(whole[beginning], position)
    for members in sharing.values():
        if len(members) <= max(PART_ROWS, PART_SHARE * len(profiles)):
            for member in members[1:]:
                linked.join(members[0], member)


def _telling(words: Sequence[NDArray[np.uint32]]) -> list[NDArray[np.uint32]]:
    """The words of each text without those that many texts have."""
    if len(words) < FREQUENT_ROWS:
        return list(words)
    flat = np.concatenate(words)
    known, rows = np.unique(flat, return_counts=True)
    rare = ~np.isin(flat, known[rows > FREQUENT_SHARE * len(words)])
    ends = np.cumsum([len(text) for text in words])[:-1]
    return [text[kept] for text, kept in zip(words, np.split(rare, ends), strict=True)]


def _candidates(keys: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that share a band."""
    for band in keys.T:
        order = np.argsort(band, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            if len(bucket) > MAX_COMPARED:
                yield from zip(bucket.tolist(), bucket[1:].tolist(), strict=False)
            elif len(bucket) > 1:
                yield from combinations(bucket.tolist(), 2)


def _changed(one: Signature, other: Signature, per_change: int, told: int | None = None) -> bool:
    """Whether few enough words differ, for the number of words that tell the shorter text."""
    shared = len(np.intersect1d(one.words, other.words, assume_unique=True))
    shorter = min(len(one.words), len(other.words))
    allowed = (shorter if told is None else told) // per_change
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


def _pairs(items: Iterable[T]) -> Iterator[tuple[T, T]]:
    """All pairs of some items; of many items those that are next to each other."""
    listed = list(items)
    if len(listed) > MAX_COMPARED:
        return pairwise(listed)
    return combinations(listed, 2)


def _result(profiles: Sequence[bytes], linked: _Links, members: Iterable[int]) -> Groups:
    roots = [linked.root(member) for member in members]
    names = {root: hashlib.blake2b(profiles[root], digest_size=8).hexdigest() for root in roots}
    first: dict[int, int] = {}
    examples: dict[int, tuple[int, int]] = {}
    for row, root in enumerate(roots):
        if first.setdefault(root, row) != row:
            examples.setdefault(root, (first[root], row))
    sizes = [size for size in Counter(roots).values() if size > 1]
    return Groups(
        keys=[names[root] for root in roots],
        joined=sum(sizes),
        largest=max(sizes, default=0),
        examples=list(examples.values()),
    )
