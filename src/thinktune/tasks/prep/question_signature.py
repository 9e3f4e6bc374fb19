"""What a row asks, in some hundred bytes, by which `near_duplicates` compares it with other rows.

A signature is bytes, so that workers can hand it to another process and 200,000 of them fit in
memory. It is the same on every machine.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from thinktune.text.question_content import Content, content, normalized

STRONG_VALUES = 4
STRONG_DIGITS = 8
"""So many numbers with so many digits are not the same in two long texts by chance."""
PART_WORDS = 8
"""A turn of so many words that carry meaning is asked by itself, whatever stands around it."""
MAX_WORDS = 2_000
MAX_TURNS = 256
"""Bounds of a signature. Of a longer text the words with the smallest digests are kept, which are
the same ones in similar texts."""
FEW_WORDS = 24
MAX_WORD = 64
"""Up to so many words are kept as text, where numbers agree and words may not."""
_HEAD = struct.Struct("<QQ6BBHHHHH")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one row asks the model."""

    turns: Sequence[str]
    """The user's turns, oldest first; the last is the question."""
    options: str | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """What is compared, unpacked."""

    block: int
    """Digest of numbers, signs and negations: rows of different blocks never ask the same."""
    exact: int
    """Digest of the block and all words."""
    loose: tuple[int, ...]
    """Counts of 1 and 2 as digits and as words, and question words, as in `Content`."""
    evidence: bool
    """Whether the numbers alone nearly tell the question from all others."""
    strong: bool
    words: NDArray[np.uint32]
    """Digests of the words that carry meaning, sorted."""
    numbers: NDArray[np.uint32]
    """Digests of the numbers, each once, sorted."""
    beginnings: tuple[int, ...]
    """A key for each beginning of the row: its first turn, its first two, … all it asks."""
    parts: tuple[int, ...]
    """Keys of the turns that say enough to be asked by themselves."""
    few_words: tuple[str, ...]
    """The words themselves, sorted, if they are few and the numbers are evidence."""


def signature(asked: Asked) -> bytes:
    """The signature of one row. Time is linear in its text."""
    said = [content(text) for text in asked.turns]
    if asked.options:
        said.append(content(asked.options))
    if asked.system and not any(one.substantial for one in said):
        said.insert(0, content(asked.system))
    if not any(one.substantial for one in said):  # a wink, `Who are you?`: the letters themselves
        text = " ".join(normalized("\n".join(asked.turns)).split())
        said = [replace(_joined(said), words=frozenset({text.rstrip("!?. ") or text}))]
    whole = _joined(said)
    words = whole.words
    digests = sorted({digest32(word) for word in words})[:MAX_WORDS]
    numbers = sorted({digest32(value) for value in whole.values})[:MAX_WORDS]
    block = _digest(_block(whole))
    beginnings, parts = _keys(said, len(asked.turns))
    few = sorted(words) if whole.evidence and len(words) <= FEW_WORDS else []
    few_bytes = " ".join(word[:MAX_WORD] for word in few).encode("utf-8", "replace")
    return b"".join(
        (
            _HEAD.pack(
                block,
                _digest(block, *sorted(words)),
                *(min(count, 255) for count in (*whole.ones, *whole.twos, *whole.asking)),
                whole.evidence + 2 * _strong(whole),
                len(digests),
                len(numbers),
                len(beginnings),
                len(parts),
                len(few_bytes),
            ),
            struct.pack(f"<{len(digests) + len(numbers)}I", *digests, *numbers),
            struct.pack(f"<{len(beginnings) + len(parts)}Q", *beginnings, *parts),
            few_bytes,
        )
    )


def unpacked(packed: bytes) -> Signature:
    """The parts of a signature."""
    head = _HEAD.unpack_from(packed)
    block, exact, *loose, flags, words, numbers, beginnings, parts, few = head
    at = _HEAD.size
    keys_at = at + 4 * (words + numbers)
    few_at = keys_at + 8 * (beginnings + parts)
    keys = struct.unpack_from(f"<{beginnings + parts}Q", packed, keys_at)
    return Signature(
        block=block,
        exact=exact,
        loose=tuple(loose),
        evidence=bool(flags & 1),
        strong=bool(flags & 2),
        words=np.frombuffer(packed, "<u4", words, at),
        numbers=np.frombuffer(packed, "<u4", numbers, at + 4 * words),
        beginnings=keys[:beginnings],
        parts=keys[beginnings:],
        few_words=tuple(packed[few_at : few_at + few].decode().split()),
    )


def _keys(said: Sequence[Content], turns: int) -> tuple[list[int], list[int]]:
    """Keys of the row's beginnings and of its parts. A beginning that asks nothing, a greeting,
    has none; the last one always has. Options are no part: many questions offer the same."""
    beginnings: list[int] = []
    parts: set[int] = set()
    chain = 0
    substantial = False
    for position, one in enumerate(said):
        loose = one.ones[0], one.twos[0], one.asking[0]
        key = _digest(_block(one), *loose, *sorted(one.words))
        # What asks nothing changes nothing: `Hello!` before a question, `And?` after it.
        chain = (_digest(chain, key) if chain else key) if one.substantial else chain
        substantial = substantial or one.substantial
        last = position == len(said) - 1
        if (substantial and position < MAX_TURNS - 1) or last:
            beginnings.append(chain)
        if position < turns and (one.evidence or len(one.words) >= PART_WORDS):
            parts.add(key)
    return list(dict.fromkeys(beginnings)), sorted(parts)[:MAX_TURNS]


def _joined(said: Sequence[Content]) -> Content:
    return Content(
        values=tuple(sorted(value for one in said for value in one.values)),
        ones=(sum(one.ones[0] for one in said), sum(one.ones[1] for one in said)),
        twos=(sum(one.twos[0] for one in said), sum(one.twos[1] for one in said)),
        signs=tuple(sorted(sign for one in said for sign in one.signs)),
        negations=sum(one.negations for one in said),
        asking=(_either(one.asking[0] for one in said), _either(one.asking[1] for one in said)),
        words=frozenset().union(*(one.words for one in said)),
    )


def _either(bits: Iterable[int]) -> int:
    return reduce(or_, bits, 0)


def _block(asks: Content) -> str:
    return f"{asks.negations}|{' '.join(asks.values)}|{' '.join(asks.signs)}"


def _strong(asks: Content) -> bool:
    digits = sum(character.isdigit() for value in asks.values for character in value)
    return len(asks.values) >= STRONG_VALUES and digits >= STRONG_DIGITS


def _digest(*parts: object) -> int:
    text = "\x1f".join(map(str, parts)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def digest32(word: str) -> int:
    """A digest of a word in 32 bits."""
    text = word.encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")
