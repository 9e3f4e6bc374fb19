"""MinHash of sets of word digests, cut into the bands of locality-sensitive hashing.

`near_duplicates` and `contamination` look for sets that share a band, then compare these sets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

SEED = 1
SETS_AT_ONCE = 4_096


def band_keys(
    sets: Sequence[NDArray[np.uint32]], bands: int, values_per_band: int
) -> NDArray[np.uint64]:
    """For each set, one key per band (sets × bands). Two sets with a Jaccard similarity of s have
    the same key in one band with probability s to the power of `values_per_band`."""
    permutations = bands * values_per_band
    factors = np.random.default_rng(SEED).integers(1, 1 << 63, permutations, np.uint64) * 2 + 1
    keys = np.empty((len(sets), bands), np.uint64)
    for start in range(0, len(sets), SETS_AT_ONCE):
        some = sets[start : start + SETS_AT_ONCE]
        ends = np.cumsum([0, *(len(one) for one in some)]).astype(np.uint64)
        flat = np.concatenate(some).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, permutations, SEED)
        weighted = np.array(matrix.to_rows(), np.uint64) * factors
        keys[start : start + len(some)] = weighted.reshape(len(some), bands, -1).sum(axis=2)
    return keys
