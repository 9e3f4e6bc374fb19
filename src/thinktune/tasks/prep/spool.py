"""Prepared examples on scratch disk, read again in any order.

Called by `stage`. Memory holds a few numbers of each example: what chooses among them. The examples
themselves, some ten kilobytes each, would not fit for every dataset.
"""

from array import array
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.prep.packed import Packed
from thinktune.tasks.prep.preparation import Prepared


class Spool:
    """Appended to, then read by position."""

    def __init__(self) -> None:
        self._packed = Packed()
        self._ids = Packed()
        self._signatures = Packed()
        self._keys = bytearray()
        self._names = array("Q")
        self._balance = array("h")
        self._lengths = array("i")
        self._parts = array("i")

    def close(self) -> None:
        """Gives the disk back."""
        for packed in (self._packed, self._ids, self._signatures):
            packed.close()

    def __len__(self) -> int:
        return len(self._lengths)

    def append(self, value: Prepared) -> None:
        """Adds one behind the others."""
        encoded = value.encoded
        # Apart, because some passes read these alone: as numbers they are most of an example.
        self._ids.append(np.array(encoded.ids, np.int32).tobytes())
        self._signatures.append(value.signature)
        self._packed.append(replace(value, encoded=replace(encoded, ids=[]), signature=b""))
        self._keys += value.key
        self._names.append(_name(value.id))
        self._balance.append(value.balance)
        self._lengths.append(len(encoded.ids))
        self._parts.extend((encoded.prompt_tokens, encoded.reasoning_tokens, encoded.answer_tokens))

    def __getitem__(self, position: int) -> Prepared:
        found: Prepared = self._packed.load(position)
        encoded = replace(found.encoded, ids=self.ids(position).tolist())
        return replace(found, encoded=encoded, signature=self.signature(position))

    def name(self, position: int) -> str:
        """Id of one, as its row gives it."""
        found: Prepared = self._packed.load(position)
        return found.id

    def ids(self, position: int) -> NDArray[np.int32]:
        """Token ids of one."""
        return np.frombuffer(self._ids.read(position), np.int32)

    def signature(self, position: int) -> bytes:
        """What one asks, as `near_duplicates` compares it."""
        return self._signatures.read(position)

    def keys(self) -> NDArray[np.uint64]:
        """Digest of each one's question, as two numbers."""
        return np.frombuffer(bytes(self._keys), ">u8").reshape(-1, 2).astype(np.uint64)

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each one."""
        return np.array(self._lengths, np.int64)

    def parts(self) -> NDArray[np.int64]:
        """Tokens of prompt, reasoning and answer of each one."""
        return np.array(self._parts, np.int64).reshape(-1, 3)

    def balance(self) -> NDArray[np.int64]:
        """Which of the balanced values each one has; -1 for none of them."""
        return np.array(self._balance, np.int64)

    def distinct_ids(self, positions: NDArray[np.int64]) -> dict[int, str]:
        """New ids for those of `positions` that share theirs with an earlier one: the second is
        `id#2`, and so on. Evaluation pairs samples by id, and a user's own column may repeat
        one."""
        names = np.array(self._names, np.uint64)[positions]
        known, where, counts = np.unique(names, return_inverse=True, return_counts=True)
        seen: dict[str, int] = {}
        given: set[str] = set()
        renamed: dict[int, str] = {}
        for position in np.sort(positions[counts[where] > 1]).tolist():
            name = self.name(position)
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                while (new := f"{name}#{seen[name]}") in given or _is_among(known, _name(new)):
                    seen[name] += 1
                given.add(new)
                renamed[position] = new
        return renamed


def _name(text: str) -> int:
    """An id as a number, the same within one process."""
    return hash(text) & ((1 << 64) - 1)


def _is_among(known: NDArray[np.uint64], name: int) -> bool:
    place = int(np.searchsorted(known, np.uint64(name)))
    return place < len(known) and int(known[place]) == name
