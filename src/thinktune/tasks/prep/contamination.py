"""Training rows that a named test set knows: the same question, a passage of it, or one like it.

How prep calls it: `TestIndex(name, questions)` once for each test set (the recipe's own held-out
side, MedQA's test questions, any file), then for each training row, in any process,
`index.match(row, text, packed)` with the row's text and its signature; what comes back goes to one
`Contamination`, whose `counts` and `worst()` go on the data card. The index grows with the test
set, the rest with nothing; time is linear in the rows' text.

A match is for eyes, no verdict. It is one of three, the first that holds:
- the same question: all that is asked is equal, in whatever wording (`near_duplicates`);
- a passage: the longest run of equal words has PASSAGE_WORDS words or more, and is no small part
  of the test question. Runs are found by their 8-grams, save those that stand all over the test
  set: `which of the following is the most likely diagnosis` finds nothing by itself;
- alike: most words that carry meaning are shared (Jaccard), and half of the numbers. Found by
  MinHash.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.prep.minhash import band_keys
from thinktune.tasks.prep.question_signature import (
    Asked,
    Signature,
    digest32,
    signature,
    unpacked,
)
from thinktune.text.question_content import normalized

PASSAGE_WORDS = 8
PASSAGE_SHARE = 0.3
PASSAGE_LONG = 30
"""A run of so many words is a passage, however long the test question is."""
COMMON = 8
"""An 8-gram that stands in a test set more often is a phrase."""
ALIKE = 0.6
ALIKE_NUMBERS = 0.5
BANDS = 31
VALUES_PER_BAND = 4
"""Two questions that share 60% of their words meet in a band with p = 0.99."""
SHOWN = 200
SHOWN_CHARACTERS = 400
SAME, PASSAGE, LIKE = "same question", "passage", "alike"
_WORD = re.compile(r"[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """A training row and the test question that is most like it."""

    row: str
    test_set: str
    test: str
    """Id of the test question."""
    kind: str
    """`same question`, `passage` or `alike`."""
    words: int
    """Words of the longest run that both have; 0 below PASSAGE_WORDS."""
    share: float
    """Share of the test question's words that is in this run."""
    similarity: float
    """Jaccard similarity of the words that carry meaning."""
    text: str
    """The run, or the test question where there is none; normalized and cut short."""

    def weight(self) -> tuple[int, float, int]:
        """More for a clearer match."""
        rank = (LIKE, PASSAGE, SAME).index(self.kind)
        return rank, max(self.share, self.similarity), self.words


class TestIndex:
    """The questions of one test set, ready to be looked up."""

    __test__ = False  # no test of pytest's

    def __init__(self, name: str, questions: Iterable[tuple[str, Asked]]) -> None:
        """Takes the id of each question, and what is asked."""
        self.name = name
        self._ids: list[str] = []
        self._texts: list[list[str]] = []
        self._asks: list[Signature] = []
        self._same: dict[int, int] = {}
        for test, asked in questions:
            asks = unpacked(signature(asked))
            text = "\n".join((*asked.turns, asked.options or ""))
            self._same.setdefault(asks.beginnings[-1], len(self._ids))
            self._ids.append(test)
            self._texts.append(_words(text))
            self._asks.append(asks)
        self._runs = _RunIndex(self._texts)
        self._bands: dict[tuple[int, int], list[int]] = defaultdict(list)
        keys = band_keys([asks.words for asks in self._asks], BANDS, VALUES_PER_BAND)
        for number, row in enumerate(keys.tolist()):
            for band in enumerate(row):
                self._bands[band].append(number)

    def match(self, row: str, text: str, packed: bytes) -> Match | None:
        """The test question that a training row is most like, if it is like one. `text` is all
        that the row says, `packed` the signature of what it asks."""
        asks = unpacked(packed)
        words = _words(text)
        run = self._runs.longest(words)
        same = self._same.get(asks.beginnings[-1])
        if same is not None:
            kind, test = SAME, same
        elif self._is_passage(run):
            kind, test = PASSAGE, run.question
        elif (like := self._like(asks)) is not None:
            kind, test = LIKE, like
        else:
            return None
        length = run.words if run.question == test else 0
        shown = words[run.start : run.start + length] or self._texts[test]
        return Match(
            row=row,
            test_set=self.name,
            test=self._ids[test],
            kind=kind,
            words=length,
            share=length / max(len(self._texts[test]), 1),
            similarity=_jaccard(asks.words, self._asks[test].words),
            text=" ".join(shown)[:SHOWN_CHARACTERS],
        )

    def _is_passage(self, run: "_Run") -> bool:
        if not run.words:
            return False
        return run.words >= min(PASSAGE_LONG, PASSAGE_SHARE * len(self._texts[run.question]))

    def _like(self, asks: Signature) -> int | None:
        """The most similar question with the same numbers, or at least half of them."""
        keys = band_keys([asks.words], BANDS, VALUES_PER_BAND)[0].tolist()
        near = {number for band in enumerate(keys) for number in self._bands.get(band, ())}
        found = [
            (similarity, -number)
            for number in near
            if (similarity := _jaccard(asks.words, self._asks[number].words)) >= ALIKE
            and _jaccard(asks.numbers, self._asks[number].numbers) >= ALIKE_NUMBERS
        ]
        return -max(found)[1] if found else None


@dataclass(frozen=True, slots=True)
class _Run:
    """Equal words of a text and a test question."""

    words: int
    start: int
    """The first word's place in the text."""
    question: int


class _RunIndex:
    """Finds the longest run of words that a text has in common with one of several questions."""

    def __init__(self, questions: Sequence[Sequence[str]]) -> None:
        self._words = _digests([word for words in questions for word in words])
        lengths = np.array([len(words) for words in questions], np.int64)
        self._ends = np.cumsum(lengths)
        self._question = np.repeat(np.arange(len(questions)), lengths)
        grams = _grams(self._words)
        inside = np.arange(len(grams)) + PASSAGE_WORDS <= self._ends[self._question[: len(grams)]]
        places = np.flatnonzero(inside)
        order = np.argsort(grams[places], kind="stable")
        sorted_grams = grams[places][order]
        _, which, counts = np.unique(sorted_grams, return_inverse=True, return_counts=True)
        kept = counts[which] <= COMMON
        self._grams, self._places = sorted_grams[kept], places[order][kept]

    def longest(self, words: Sequence[str]) -> _Run:
        """The longest run; of several equally long ones the first. No words where there is none."""
        text = _digests(words)
        grams = _grams(text)
        first = np.searchsorted(self._grams, grams, "left")
        last = np.searchsorted(self._grams, grams, "right")
        best = _Run(0, 0, 0)
        seen: dict[int, int] = {}  # offset of text and questions → up to where it was compared
        for at in np.flatnonzero(first < last).tolist():
            for place in self._places[first[at] : last[at]].tolist():
                if seen.get(place - at, 0) <= at:
                    run, seen[place - at] = self._extended(text, at, place)
                    if run.words > best.words:
                        best = run
        return best

    def _extended(self, text: NDArray[np.uint64], at: int, place: int) -> tuple[_Run, int]:
        """The whole run around an 8-gram, and where it ends in the text."""
        question = int(self._question[place])
        begin = int(self._ends[question - 1]) if question else 0
        before = min(at, place - begin)
        after = min(len(text) - at, int(self._ends[question]) - place)
        behind = text[at - before : at] != self._words[place - before : place]
        ahead = text[at : at + after] != self._words[place : place + after]
        start = at - before + (int(np.flatnonzero(behind)[-1]) + 1 if behind.any() else 0)
        end = at + (int(np.argmax(ahead)) if ahead.any() else after)
        return _Run(end - start, start, question), end


class Contamination:
    """Counts matches and keeps the worst of them, whatever order they come in."""

    def __init__(self, shown: int = SHOWN) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        """For each test set, the training rows of each kind of match."""
        self._shown = shown
        self._worst: list[tuple[tuple[int, float, int], Match]] = []

    def add(self, match: Match | None) -> None:
        """Takes what `TestIndex.match` found for one row."""
        if match is None:
            return
        self.counts[match.test_set][match.kind] += 1
        heapq.heappush(self._worst, (match.weight(), match))
        if len(self._worst) > self._shown:
            heapq.heappop(self._worst)

    def worst(self) -> list[Match]:
        """The clearest matches first, at most as many as are shown."""
        return [match for _, match in sorted(self._worst, reverse=True)]


def _words(text: str) -> list[str]:
    return _WORD.findall(_THOUSANDS.sub("", normalized(text)))


def _digests(words: Sequence[str]) -> NDArray[np.uint64]:
    return np.array([digest32(word) for word in words], np.uint64)


def _grams(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A digest of every PASSAGE_WORDS words in a row, by where they begin."""
    grams = np.zeros(max(len(words) - PASSAGE_WORDS + 1, 0), np.uint64)
    for i in range(PASSAGE_WORDS):
        grams = grams * _BASE + words[i : i + len(grams)]
    return grams


def _jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    either = len(one) + len(other) - shared
    return shared / either if either else 1.0
