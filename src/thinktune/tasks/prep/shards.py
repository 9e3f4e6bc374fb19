"""Prep's Parquet files: tokenized examples for training, rendered questions for evaluation.

Written by `stage`; read by `thinktune.tasks.train.sft.examples` and
`thinktune.tasks.evaluate.stage`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.tasks.prep.selection import Positions
from thinktune.tasks.prep.spool import Spool
from thinktune.tasks.runtime.stopping import Stop

ROWS_PER_SHARD = 20_000
ROWS_AT_ONCE = 1_000
"""Rows of a row group, which is what memory holds."""

TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("prompt_tokens", pa.int32()),
        ("reasoning_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
    ]
)
QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("pieces", pa.list_(pa.struct([("text", pa.string()), ("control", pa.bool_())]))),
        ("group", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("reference", pa.string()),
    ]
)


def write_shards(
    folder: Path,
    name: str,
    spool: Spool,
    positions: Positions,
    names: Mapping[int, str],
    stop: Stop,
) -> None:
    """`<name>-00000.parquet` …, in the order of `positions`; one empty shard where there are none.

    `names`: ids other than the spool's. Raises Preempted when asked to stop.
    """
    for number, start in enumerate(range(0, max(1, len(positions)), ROWS_PER_SHARD)):
        some = positions[start : start + ROWS_PER_SHARD]
        with pq.ParquetWriter(folder / f"{name}-{number:05d}.parquet", TOKENS) as writer:
            for group in _groups(some):
                stop.check("prep")
                writer.write_table(_tokens(spool, group, names))


def write_questions(
    path: Path,
    spool: Spool,
    positions: Positions,
    names: Mapping[int, str],
    groups: Sequence[str],
) -> None:
    """The test side: what is asked, and what is held against the answer. `groups` are the values
    that the recipe balances, in its order."""
    with pq.ParquetWriter(path, QUESTIONS) as writer:
        for group in _groups(positions):
            columns: dict[str, list[object]] = {name: [] for name in QUESTIONS.names}
            for position in group.tolist():
                prepared = spool[position]
                rendered, encoded = prepared.rendered, prepared.encoded
                columns["id"].append(names.get(position, prepared.id))
                columns["question"].append(prepared.question)
                columns["pieces"].append([asdict(piece) for piece in rendered.prompt])
                balanced = groups[prepared.balance] if prepared.balance >= 0 else None
                columns["group"].append(balanced)
                columns["prompt_ids"].append(encoded.ids[: encoded.prompt_tokens])
                columns["reasoning"].append(rendered.reasoning)
                columns["answer"].append(rendered.answer)
                columns["reference"].append(rendered.reference)
            writer.write_table(pa.table(columns, schema=QUESTIONS))


def _groups(positions: Positions) -> Iterator[Positions]:
    for start in range(0, max(1, len(positions)), ROWS_AT_ONCE):
        yield positions[start : start + ROWS_AT_ONCE]


def _tokens(spool: Spool, positions: Positions, names: Mapping[int, str]) -> pa.Table:
    where = positions.tolist()
    ids = [spool.ids(position) for position in where]
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    flat = np.concatenate([np.empty(0, np.int32), *ids])
    parts = spool.parts()[positions].astype(np.int32)
    columns = [
        pa.array([names.get(p) or spool.name(p) for p in where], pa.string()),
        pa.ListArray.from_arrays(ends, flat),
        *(pa.array(part) for part in parts.T),
    ]
    return pa.Table.from_arrays(columns, schema=TOKENS)
