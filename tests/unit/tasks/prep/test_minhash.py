import random

import numpy as np

from thinktune.tasks.prep.minhash import band_keys


def test_bands_are_equal_as_often_as_the_sets_are_alike() -> None:
    generator = random.Random(0)
    sets = []
    for _ in range(400):
        words = generator.sample(range(1 << 32), 150)
        sets += [np.array(words[:100], np.uint32), np.array(words[50:], np.uint32)]
    keys = band_keys(sets, 16, 2)
    equal = (keys[0::2] == keys[1::2]).mean()  # of 150 words 50 are shared: (1/3)²
    assert abs(equal - 1 / 9) < 0.02
    assert (keys[0::2] == np.roll(keys[1::2], 1, axis=0)).mean() < 0.001


def test_a_set_has_the_same_keys_in_any_order_and_company() -> None:
    words = np.arange(30, dtype=np.uint32)
    alone = band_keys([words], 4, 4)
    among = band_keys([np.arange(7, dtype=np.uint32), words[::-1].copy()], 4, 4)
    assert (alone[0] == among[1]).all()
    assert band_keys([], 4, 4).shape == (0, 4)
    assert band_keys([np.array([], np.uint32)], 4, 4).shape == (1, 4)


def test_keys_are_the_same_on_every_machine() -> None:
    """A split must not change with the library's version or the processor."""
    keys = band_keys([np.array([1, 2, 3], np.uint32)], 2, 4)
    assert keys.tolist() == [[18059826159814805350, 12489241681209604214]]
