"""Prep's Parquet files: tokenized examples for training, rendered questions for evaluation.

Written by `stage`; read by `thinktune.tasks.train.sft.examples` and
`thinktune.tasks.evaluate.stage`.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.tasks.prep.rows import Example
from thinktune.text.templates import Rendered
from thinktune.text.tokens import Encoded

ROWS_PER_SHARD = 20_000

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
        ("prompt", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("reference", pa.string()),
    ]
)


def write_shards(
    folder: Path, name: str, identifiers: Sequence[str], examples: Sequence[Encoded]
) -> None:
    """`<name>-00000.parquet` …; one empty shard where there are no examples."""
    for number, start in enumerate(range(0, max(1, len(examples)), ROWS_PER_SHARD)):
        some = examples[start : start + ROWS_PER_SHARD]
        table = pa.table(
            {
                "id": list(identifiers[start : start + ROWS_PER_SHARD]),
                "ids": [e.ids for e in some],
                "prompt_tokens": [e.prompt_tokens for e in some],
                "reasoning_tokens": [e.reasoning_tokens for e in some],
                "answer_tokens": [e.answer_tokens for e in some],
            },
            schema=TOKENS,
        )
        pq.write_table(table, folder / f"{name}-{number:05d}.parquet")


def write_questions(
    path: Path, questions: Sequence[tuple[Example, Rendered, Sequence[int]]]
) -> None:
    """The test side: what is asked, and what is held against the answer."""
    columns: dict[str, list[object]] = {name: [] for name in QUESTIONS.names}
    for example, rendered, ids in questions:
        columns["id"].append(example.id)
        columns["question"].append(example.question)
        columns["prompt"].append(rendered.prompt_text())
        columns["prompt_ids"].append(list(ids))
        columns["reasoning"].append(rendered.reasoning)
        columns["answer"].append(rendered.answer)
        columns["reference"].append(rendered.reference)
    pq.write_table(pa.table(columns, schema=QUESTIONS), path)
