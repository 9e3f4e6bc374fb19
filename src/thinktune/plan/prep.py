"""The plan of data preparation: rows, time and memory.

Called by `thinktune.plan.run`. Rate and memory are those that `benchmarks/prep.py` measured on two
cores with DeepSeek's tokenizer (docs/performance.md).
"""

import math

from thinktune.plan.language_model import LanguageModelPlan, written_column
from thinktune.plan.network import (
    BYTES_PER_TOKEN,
    HUB_BYTES_PER_S,
    download_seconds,
    fetch_seconds,
)
from thinktune.plan.training.speed import mean_tokens
from thinktune.schema.catalog import GIB, DatasetEntry, HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.recipe import Recipe

TOKENS_PER_S = 1.79e6
"""Tokens that prep renders, encodes, checks and writes in a second: 20,000 rows of 2,560 tokens
took 28.6 s on two cores."""
START_S = 2.0
"""Seconds for the interpreter, its libraries and the tokenizer; an assumption."""
PROCESS_BYTES = 478 * 2**20
ROW_BYTES = 530
"""Largest resident set of prep, and its growth by each row: 489 MiB with 20,000 rows and 580 MiB
with 200,000 were measured. Rows pass through the disk."""

POD_MEMORY_BYTES = 11 * GIB
"""Memory of prep's pod, unless the cluster file says it: what clouds leave of a node with 4 CPUs
and 16 GiB. Weights pass through the disk."""
NODE_SHARE = 0.9
"""Share of a node's CPUs and memory that a pod may request. Kubelet and daemons need the rest."""


class PrepPlan(Closed):
    """Data preparation of a recipe, on a node without GPUs."""

    rows: int | None
    """Rows that are read; null where neither recipe nor catalog says how many."""
    tokens: int | None
    """Tokens of these rows; null where the number of rows is not known."""
    download_s: float
    """Seconds to fetch the model and the rows from the hub, and to put the model into the store;
    none of it where the store has the model already."""
    work_s: float | None
    """Seconds to read, render, check, encode and write the rows; null where their number is not
    known."""
    memory_bytes: int | None
    """Largest resident set of the process; null where the number of rows is not known."""
    hours: float | None
    """Hours of the stage; null where the number of rows is not known, or where a batch service
    writes a column."""
    language_model: LanguageModelPlan | None
    """The language model that writes a column; null where none does."""
    assumptions: tuple[str, ...]
    """What the figures rest on, one sentence each."""


def plan_prep(recipe: Recipe, model: ModelEntry, dataset: DatasetEntry | None) -> PrepPlan:
    """Plans the preparation of the rows of `dataset`, which is None for a file of the user's own.

    Filters drop rows only after they were read, so all rows count.
    """
    rows = rows_read(recipe, dataset)
    tokens = None if rows is None else rows * mean_tokens(recipe)
    download = download_seconds(model) + fetch_seconds(model)
    if tokens is not None and dataset is not None and dataset.repo is not None:
        download += tokens * BYTES_PER_TOKEN / HUB_BYTES_PER_S
    work = None if tokens is None else START_S + tokens / TOKENS_PER_S
    asked = None if rows is None else written_column(recipe, rows)
    waits = 0.0 if asked is None else asked.hours
    hours = None
    if work is not None and waits is not None:
        hours = (download + work) / 3600 + waits
    return PrepPlan(
        rows=rows,
        tokens=tokens,
        download_s=download,
        work_s=work,
        memory_bytes=None if rows is None else prep_memory(rows),
        hours=hours,
        language_model=asked,
        assumptions=_assumptions(recipe, rows, asked),
    )


def prep_memory(rows: int) -> int:
    """Bytes of the largest resident set of prep."""
    return PROCESS_BYTES + ROW_BYTES * rows


def pod_memory(given_gib: int | None, hardware: HardwareEntry) -> int:
    """Bytes of memory, in whole MiB, that prep's pod gets: those of the cluster file (`prep`), else
    the usual ones, or what the recipe's hardware has if that is less."""
    if given_gib is not None:
        return given_gib * GIB
    return min(POD_MEMORY_BYTES, math.floor(NODE_SHARE * hardware.host_memory_gib * 1024) * 2**20)


def rows_read(recipe: Recipe, dataset: DatasetEntry | None) -> int | None:
    """Rows that prep reads, before any is dropped."""
    if recipe.data.expected_rows is not None:
        return recipe.data.expected_rows
    if dataset is None or dataset.rows is None:
        return None
    return dataset.rows


def _assumptions(
    recipe: Recipe, rows: int | None, asked: LanguageModelPlan | None
) -> tuple[str, ...]:
    found = [
        f"Prep encodes {TOKENS_PER_S / 1e6:.1f} million tokens/s, as on two cores of a server; the"
        f" hub sends {HUB_BYTES_PER_S / 1e6:.0f} MB/s. A model that the store has is not fetched"
        " again.",
    ]
    if rows is None:
        found.append("How many rows prep reads is not known (data.expected_rows), nor its time.")
    if asked is not None and asked.hours is None:
        found.append(f"The batch service behind {asked.section} takes up to a day on top.")
    elif asked is not None:
        found.append(f"The language model of {asked.section} is waited for, 10 s for each reply.")
    if recipe.data.generate is not None and asked is None:
        found.append("How much data.generate asks is not known before the rows are.")
    return tuple(found)
