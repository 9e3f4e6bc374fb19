"""Prep's shards as training examples, held in memory as token ids.

Called by `stage`. Which tokens are targets is decided here, from the parts that prep wrote and the
recipe's `loss_on`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from thinktune.schema.errors import InputMissing


@dataclass(frozen=True, slots=True)
class TrainExample:
    """Token ids of one document, and the token from which on it is learned."""

    id: str
    ids: npt.NDArray[np.int32]
    first_target: int
    """Index of the first token that counts in the loss; all after it count too. At least 1, since
    a token is predicted from the one before it."""

    @property
    def tokens(self) -> int:
        """Number of tokens of the whole example."""
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Number of tokens that count in the loss."""
        return len(self.ids) - self.first_target


@dataclass(frozen=True)
class Data:
    """All examples that a training sees."""

    train: Sequence[TrainExample]
    """Examples that it learns from."""
    validation: Sequence[TrainExample]
    """Examples that its validation loss is measured on; there may be none."""


def read_examples(
    folder: Path, side: str, loss_on: Literal["completion", "answer"]
) -> list[TrainExample]:
    """All examples of one side (`train` or `validation`), in prep's order."""
    paths = sorted(folder.glob(f"{side}-*.parquet"))
    if not paths:
        raise InputMissing(str(folder), f"no {side} shards", "run prep again")
    examples = []
    for path in paths:
        table = pq.read_table(path)
        for row in table.to_pylist():
            start = row["prompt_tokens"]
            if loss_on == "answer":
                start += row["reasoning_tokens"]
            ids = np.asarray(row["ids"], dtype=np.int32)
            examples.append(TrainExample(row["id"], ids, max(1, start)))
    return examples
