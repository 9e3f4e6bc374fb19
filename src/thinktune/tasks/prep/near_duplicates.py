"""Questions that are rewordings of each other, so that a group stays on one side of the split.

How prep calls it: a worker makes `signature(Asked(turns, options, system))` of each row that is
kept; one process adds the signatures, in any order, to a `NearDuplicates` and hands its
`groups().keys` to `selection.split` in place of question keys. Duplicates to be *removed* are
found by `rows.question_key`, not here: rows that only look alike are all kept, on one side.

What is asked is the numbers as values, arithmetic signs, how often it is negated, and the words
that carry meaning (`text.question_content`). Rows of which one asks who and the other when are
never joined. Two rows are joined if

1. all of that is equal, in whatever order and wording;
2. the numbers agree and are not small (`Content.evidence`), and one word differs by one letter, a
   slip; or half of all words agree and those that don't are everyday words, such as hats and caps;
3. numbers and negations agree, and of the words of a long text at most one in ten was changed on
   each side (one in four where many numbers agree). Such pairs are found by MinHash over the words
   and LSH, then checked word by word;
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.prep.minhash import band_keys
from thinktune.tasks.prep.packed import Packed
from thinktune.tasks.prep.question_signature import Asked as Asked
from thinktune.tasks.prep.question_signature import Signature, unpacked
from thinktune.tasks.prep.question_signature import signature as signature
from thinktune.tasks.prep.rewording import agree, nearly_same_words, same_but_for_words

LONG_WORDS = 20
"""A text of so many words that carry meaning is long."""
PART_ROWS = 20
PART_SHARE = 0.01
"""A turn that more rows share, in number and as a share of all, is an instruction, no question."""
FREQUENT_SHARE = 0.1
FREQUENT_ROWS = 200
"""Among fewer rows no word is frequent."""
MAX_COMPARED = 100
"""More rows with the same numbers, or in one LSH bucket, are a template: not every pair of them is
compared."""
BANDS = 21
VALUES_PER_BAND = 6
"""Two texts that share 82% of their words, the fewest that are joined, meet in a band with
p = 0.999, two that share 10% with p = 2e-5."""
ROWS_AT_ONCE = 4_096
EXAMPLES = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Groups:
    """Which rows belong together."""

    keys: NDArray[np.uint64]
    """For each row, in the order added, the key of its group: two numbers."""
    joined: int
    """Rows that are not alone in their group."""
    largest: int
    """Rows of the largest group. A large share of all rows is worth a look."""
    examples: list[tuple[int, int]]
    """The first two rows of some groups, for eyes: they ask the same."""


class NearDuplicates:
    """Collects the signatures of all rows, then groups them. Signatures lie on scratch disk; memory
    holds a digest of each."""

    def __init__(self) -> None:
        self._packed = Packed()
        self._digests = bytearray()

    def close(self) -> None:
        """Gives the disk back."""
        self._packed.close()

    def add(self, packed: bytes) -> None:
        """Takes the next row's signature."""
        self._digests += hashlib.blake2b(packed, digest_size=16).digest()
        self._packed.append(packed)

    def groups(self, check: Callable[[], None] = lambda: None) -> Groups:
        """Groups all rows added so far. `check` is called now and then, and may raise."""
        digests = np.frombuffer(bytes(self._digests), ">u8").reshape(-1, 2)
        # In an order of their own, not that in which they were added.
        known, first, place = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        profiles = _Profiles(self._packed, first)
        linked = _Links(len(profiles))
        profiles.check = check
        _link_equal(profiles, linked)
        _link_same_numbers(profiles, linked)
        _link_long(profiles, linked)
        _link_parts(profiles, linked)
        return _result(known.astype(np.uint64), linked, place.reshape(-1))


class _Profiles(Sequence[bytes]):
    """The signatures, each once, by position."""

    def __init__(self, packed: Packed, first: NDArray[np.int64]) -> None:
        self._packed = packed
        self._first = first
        self.check: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, position: Any) -> Any:
        self.check()
        return self._packed.read(int(self._first[position]))

    def __iter__(self) -> Iterator[bytes]:
        return (self[position] for position in range(len(self)))


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
    for members in _runs(_keys(profiles, lambda asks: asks.exact)):
        kinds: dict[tuple[int, ...], int] = {}
        for member in members:
            linked.join(kinds.setdefault(unpacked(profiles[member]).loose, member), member)
        for (one, first), (other, second) in _pairs(sorted(kinds.items())):
            if agree(one, other):
                linked.join(first, second)


def _link_same_numbers(profiles: Sequence[bytes], linked: _Links) -> None:
    """Slips of one letter, everyday words exchanged, and long texts with many equal numbers."""
    for members in _runs(_keys(profiles, lambda asks: asks.block)):
        roots = [member for member in members if linked.root(member) == member]
        if len(roots) > MAX_COMPARED or not unpacked(profiles[roots[0]]).evidence:
            continue
        asking = [(root, unpacked(profiles[root])) for root in roots]
        for (first, one), (second, other) in combinations(asking, 2):
            if agree(one.loose, other.loose) and same_but_for_words(one, other):
                linked.join(first, second)


def _link_long(profiles: Sequence[bytes], linked: _Links) -> None:
    """Long texts that share nearly all of their words."""
    every = range(len(profiles))
    roots = array("L", (position for position in every if linked.root(position) == position))
    frequent = _frequent_words(profiles, roots)
    long = array("L")
    told = array("L")
    keys = [np.empty((0, BANDS), np.uint64)]
    for some in _batches(roots):
        asking = {root: unpacked(profiles[root]) for root in some}
        telling = {
            root: asks.words[~np.isin(asks.words, frequent)] for root, asks in asking.items()
        }
        telling = {root: words for root, words in telling.items() if len(words) >= LONG_WORDS}
        blocks = np.array([asking[root].block for root in telling], np.uint64)
        keys.append(band_keys(list(telling.values()), BANDS, VALUES_PER_BAND) ^ blocks[:, None])
        long.extend(telling)
        told.extend(len(words) for words in telling.values())
    for band in np.concatenate(keys).T:
        for bucket in _runs(band):
            for first, second in _pairs(bucket):
                here, there = long[first], long[second]
                if linked.root(here) == linked.root(there):
                    continue
                one, other = unpacked(profiles[here]), unpacked(profiles[there])
                alike = one.block == other.block and agree(one.loose, other.loose)
                shorter = min(told[first], told[second])
                if alike and nearly_same_words(one, other, shorter):
                    linked.join(here, there)


def _link_parts(profiles: Sequence[bytes], linked: _Links) -> None:
    """Rows that begin as another row is, and rows that share a turn that can stand alone."""
    whole = _keys(profiles, lambda asks: asks.beginnings[-1])
    for members in _runs(whole):
        for member in members:
            linked.join(members[0], member)
    beginnings, parts = array("Q"), array("Q")
    beginners, parted = array("L"), array("L")
    for position, packed in enumerate(profiles):
        asks = unpacked(packed)
        beginnings.extend(asks.beginnings[:-1])
        beginners.extend([position] * (len(asks.beginnings) - 1))
        parts.extend(asks.parts)
        parted.extend([position] * len(asks.parts))
    begun = np.isin(whole, np.array(beginnings, np.uint64))
    places = {int(whole[position]): position for position in np.flatnonzero(begun).tolist()}
    for beginning, position in zip(beginnings, beginners, strict=True):
        if beginning in places:
            linked.join(places[beginning], position)
    for sharing in _runs(np.array(parts, np.uint64)):
        if len(sharing) <= max(PART_ROWS, PART_SHARE * len(profiles)):
            for member in sharing:
                linked.join(parted[sharing[0]], parted[member])


def _keys(profiles: Sequence[bytes], key: Callable[[Signature], int]) -> NDArray[np.uint64]:
    return np.fromiter((key(unpacked(packed)) for packed in profiles), np.uint64, len(profiles))


def _runs(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """The places of each key that stands more than once, in ascending order."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate([[0], ends])
    lengths = np.diff(np.concatenate([starts, [len(keys)]]))
    for run in np.flatnonzero(lengths > 1):
        yield order[starts[run] : starts[run] + lengths[run]].tolist()


def _batches(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), ROWS_AT_ONCE):
        yield positions[start : start + ROWS_AT_ONCE]


def _frequent_words(profiles: Sequence[bytes], positions: Sequence[int]) -> NDArray[np.uint32]:
    """Words that more than FREQUENT_SHARE of the texts have; each is frequent in some batch."""
    if len(positions) < FREQUENT_ROWS:
        return np.array([], np.uint32)
    frequent: set[int] = set()
    for some in _batches(positions):
        known, rows = np.unique(_all_words(profiles, some), return_counts=True)
        frequent.update(known[rows > FREQUENT_SHARE * len(some)].tolist())
    words = np.array(sorted(frequent), np.uint32)
    counts = np.zeros(len(words), np.int64)
    for some in _batches(positions):
        found = np.searchsorted(words, _all_words(profiles, some, words))
        counts += np.bincount(found, minlength=len(words))
    return words[counts > FREQUENT_SHARE * len(positions)]


def _all_words(
    profiles: Sequence[bytes], some: Sequence[int], among: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    words = np.concatenate([unpacked(profiles[position]).words for position in some])
    return words if among is None else words[np.isin(words, among)]


def _pairs(items: Iterable[T]) -> Iterator[tuple[T, T]]:
    """All pairs of some items; of many items those that are next to each other."""
    listed = list(items)
    if len(listed) > MAX_COMPARED:
        return pairwise(listed)
    return combinations(listed, 2)


def _result(digests: NDArray[np.uint64], linked: _Links, place: NDArray[np.int64]) -> Groups:
    """The groups of rows, from the sets of signatures. A group is named by the digest of its
    smallest signature, whatever rows it has."""
    root_of = np.fromiter((linked.root(n) for n in range(len(digests))), np.int64, len(digests))
    roots = root_of[place]
    _, first, group, sizes = np.unique(
        roots, return_index=True, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    later = np.flatnonzero(first[group] != np.arange(len(roots)))
    _, second = np.unique(group[later], return_index=True)
    pairs = later[np.sort(second)][:EXAMPLES]
    return Groups(
        keys=digests[roots],
        joined=int(sizes[sizes > 1].sum()),
        largest=int(sizes[sizes > 1].max(initial=0)),
        examples=[(int(first[group[row]]), int(row)) for row in pairs.tolist()],
    )
