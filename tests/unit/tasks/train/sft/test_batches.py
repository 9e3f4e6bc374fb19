"""Order and balance: what a step takes never depends on ranks or rows."""

import random

import numpy as np
import pytest

from thinktune.tasks.train.sft.batches import BatchOrder, balance, pack
from thinktune.tasks.train.sft.examples import TrainExample


def test_each_epoch_takes_every_example_once() -> None:
    order = BatchOrder(examples=10, batch_size=4, seed=3)
    assert order.steps(epochs=2, max_steps=None) == 5
    taken = [i for step in range(5) for i in order.step(step)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


def test_every_step_is_full() -> None:
    order = BatchOrder(examples=10, batch_size=4, seed=3)
    assert order.steps(epochs=1, max_steps=None) == 3  # the third goes on into the next epoch
    assert all(len(order.step(step)) == 4 for step in range(3))
    assert order.steps(epochs=1, max_steps=2) == 2


def test_the_order_is_a_function_of_seed_and_step() -> None:
    one, two = BatchOrder(50, 8, seed=1), BatchOrder(50, 8, seed=1)
    two.step(17)  # going elsewhere first changes nothing
    assert [one.step(s) for s in range(9)] == [two.step(s) for s in range(9)]
    assert BatchOrder(50, 8, seed=2).step(0) != one.step(0)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_balance_is_a_partition_within_the_limit(ranks: int) -> None:
    draw = random.Random(ranks)
    tokens = [draw.randint(1, 300) for _ in range(40)]
    rows = balance(tokens, ranks, row_tokens=512)
    assert sorted(i for rank in rows for row in rank for i in row) == list(range(40))
    assert len({len(rank) for rank in rows}) == 1
    assert all(sum(tokens[i] for i in row) <= 512 for rank in rows for row in rank)
    loads = [sum(tokens[i] for row in rank for i in row) for rank in rows]
    assert max(loads) - min(loads) <= max(tokens)


def test_an_example_longer_than_a_row_goes_alone() -> None:
    rows = balance([900, 10, 10], 1, row_tokens=100)[0]
    assert [0] in rows
    assert sorted(i for row in rows for i in row) == [0, 1, 2]


def test_more_ranks_than_examples() -> None:
    rows = balance([5, 7], 4, row_tokens=100)
    assert sorted(i for rank in rows for row in rank for i in row) == [0, 1]


def test_pack_predicts_each_target_from_the_token_before_it() -> None:
    first = TrainExample("a", np.array([10, 11, 12], dtype=np.int32), 1)
    second = TrainExample("b", np.array([20, 21, 22, 23], dtype=np.int32), 3)
    row = pack([first, second])
    assert row.ids.tolist() == [[10, 11, 12, 20, 21, 22, 23]]
    assert row.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert row.boundaries.tolist() == [0, 3, 7]
    assert row.predict_at.tolist() == [0, 1, 5]
    assert row.targets.tolist() == [11, 12, 23]
