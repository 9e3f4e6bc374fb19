"""The named test sets that training rows are compared with: `data.test_sets` of a recipe.

Called by `stage`. A name is `held-out` (the run's own test side), a dataset of the catalog, or a
file. A test set that cannot be read is no all-clear: it ends prep.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.schema.stages import PrepTask
from thinktune.store.data_files import data_files
from thinktune.tasks.prep.cells import text_of
from thinktune.tasks.prep.contamination import TestIndex
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.near_duplicates import Asked
from thinktune.tasks.prep.options import options_of
from thinktune.tasks.prep.preparation import asked_of
from thinktune.tasks.prep.readers.records import Row
from thinktune.tasks.prep.recognition import Layout, recognized
from thinktune.tasks.prep.rows import examples_of
from thinktune.tasks.prep.selection import Positions
from thinktune.tasks.prep.sources import Source, open_dataset, records_of
from thinktune.tasks.prep.spool import Spool
from thinktune.tasks.runtime.entry import Context
from thinktune.text.conversation import Unusable

HELD_OUT = "held-out"
PLACE = "data.test_sets"


def test_indexes(
    task: PrepTask, context: Context, spool: Spool, held_out: Positions
) -> list[TestIndex]:
    """An index of each test set. Raises SpecInvalid for a name that is none, DataInvalid where one
    cannot be read."""
    return [
        TestIndex(name, _asked(name, task, context, spool, held_out))
        for name in task.data.test_sets
    ]


def _asked(
    name: str, task: PrepTask, context: Context, spool: Spool, held_out: Positions
) -> Iterator[tuple[str, Asked]]:
    if name == HELD_OUT:
        if not len(held_out):
            fault = "names held-out, and data.split.test_rows is 0"
            raise SpecInvalid(PLACE, fault, "hold questions out, or leave the name out")
        own = (spool[position] for position in held_out.tolist())
        yield from ((each.id, each.asked) for each in own if each.asked is not None)
    elif (entry := task.test_sets.get(name)) is not None:
        data = DataSpec(dataset=name, require_reasoning=False)
        with tempfile.TemporaryDirectory(prefix="thinktune-test-") as folder:
            source = open_dataset(entry, context, Path(folder))
            yield from _of_source(source, data, entry, task.data.max_bad_fraction)
    else:
        files = data_files(name)
        if not files[0].is_file():
            fault = f"'{name}' is neither a file nor a dataset of the catalog"
            raise SpecInvalid(PLACE, fault, f"name one of them, or '{HELD_OUT}'")
        entry = DatasetEntry(license="own", format="columns", description="own")
        data = DataSpec(dataset="file", path=name, require_reasoning=False)
        source = Source(name, name, records_of(files))
        yield from _of_source(source, data, entry, task.data.max_bad_fraction)


def _of_source(
    source: Source, data: DataSpec, entry: DatasetEntry, max_bad_fraction: float
) -> Iterator[tuple[str, Asked]]:
    layout, _, records = recognized(source.records, data, entry, source.place)
    ledger = Ledger()
    for record in records:
        ledger.rows += 1
        try:
            yield record.place, _asked_by(record.read(), layout, data)
        except Unusable as unusable:
            ledger.drop(unusable.reason, record.place, bad=True)
    try:
        ledger.check(max_bad_fraction, source.place)
    except DataInvalid as error:
        raise DataInvalid(PLACE, str(error), "mend the test set") from None


def _asked_by(row: Row, layout: Layout, data: DataSpec) -> Asked:
    """What a test row asks: its answer may be missing."""
    columns = layout.columns
    if layout.conversational:
        return asked_of(examples_of(row, layout, data).examples[-1])
    question = text_of(row.get(columns.question or ""), str(columns.question))
    if not question:
        return asked_of(examples_of(row, layout, data).examples[-1])
    more = text_of(row.get(columns.input), columns.input) if columns.input else None
    options = options_of(row.get(columns.options), columns.options) if columns.options else None
    return Asked((f"{question}\n\n{more}" if more else question,), options)
