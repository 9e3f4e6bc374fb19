"""Which examples an optimizer step takes, and how they are divided among ranks and packed rows.

An optimizer step takes exactly `batch_size` examples in an order fixed by seed and epoch, whatever
the number of ranks: how they are divided decides speed and memory, never the result. Called by
`objective`.
"""

import heapq
import random
from collections.abc import Sequence

import torch

from thinktune.tasks.model.packed_row import PackedRow
from thinktune.tasks.train.sft.examples import TrainExample


class BatchOrder:
    """The stream of examples: epoch after epoch, each shuffled by seed and epoch number."""

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation: list[int] = []

    def steps(self, epochs: int, max_steps: int | None) -> int:
        """Optimizer steps until each example was taken at least `epochs` times."""
        steps = -(-self._examples * epochs // self._batch_size)
        return steps if max_steps is None else min(steps, max_steps)

    def step(self, number: int) -> list[int]:
        """Positions of the examples of step `number`, counted from 0. The last step of an epoch
        continues into the next one, so that every step has the same number of examples."""
        start = number * self._batch_size
        return [self._at(position) for position in range(start, start + self._batch_size)]

    def epoch(self, number: int) -> float:
        """Epochs done before step `number`."""
        return number * self._batch_size / self._examples

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self._examples)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = list(range(self._examples))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._permutation)
        return self._permutation[offset]


def balance(tokens: Sequence[int], ranks: int, row_tokens: int) -> list[list[list[int]]]:
    """Divides one step's examples among ranks and, within a rank, among packed rows.

    `tokens` are the examples' lengths; a row holds at most `row_tokens`, or one example. Returns
    `[rank][row][position]`. Every rank gets the same number of rows, some of which may be empty;
    rows are balanced by tokens: the longest example goes first, into the emptiest row.
    """
    total = sum(tokens)
    rows = max(1, -(-total // (ranks * row_tokens)))
    while True:
        bins = _emptiest_first(tokens, ranks * rows)
        fits = all(len(b) <= 1 or sum(tokens[i] for i in b) <= row_tokens for b in bins)
        if fits or rows >= len(tokens):
            break
        rows += 1
    # Heaviest with lightest: rank r takes bins r, 2·ranks-1-r, 2·ranks+r, …
    bins.sort(key=lambda b: -sum(tokens[i] for i in b))
    result: list[list[list[int]]] = [[] for _ in range(ranks)]
    for number, content in enumerate(bins):
        lap, offset = divmod(number, ranks)
        rank = offset if lap % 2 == 0 else ranks - 1 - offset
        result[rank].append(sorted(content))
    return result


def _emptiest_first(tokens: Sequence[int], count: int) -> list[list[int]]:
    heap = [(0, number) for number in range(count)]
    bins: list[list[int]] = [[] for _ in range(count)]
    for position in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        load, number = heapq.heappop(heap)
        bins[number].append(position)
        heapq.heappush(heap, (load + tokens[position], number))
    return bins


def pack(examples: Sequence[TrainExample]) -> PackedRow:
    """Lays the examples end to end; positions start at 0 in each, attention stays inside each."""
    lengths = tuple(example.tokens for example in examples)
    ids, positions, predict_at, targets = [], [], [], []
    offset = 0
    for example in examples:
        document = torch.from_numpy(example.ids.astype("int64"))
        ids.append(document)
        positions.append(torch.arange(example.tokens))
        targets.append(document[example.first_target :])
        first = offset + example.first_target - 1
        predict_at.append(torch.arange(first, offset + example.tokens - 1))
        offset += example.tokens
    return PackedRow(
        ids=torch.cat(ids)[None],
        positions=torch.cat(positions)[None],
        boundaries=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        lengths=lengths,
        predict_at=torch.cat(predict_at),
        targets=torch.cat(targets),
    )
