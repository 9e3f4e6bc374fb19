"""The named test sets that training rows are compared with: `data.test_sets` of a recipe.

Called by `stage`. A name is `held-out` (the run's own test side), a dataset of the catalog, or a
file.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.stages import PrepTask
from thinktune.store.data_files import data_files
from thinktune.tasks.prep.contamination import TestIndex
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.prep.recognition import HEAD_ROWS, recognize
from thinktune.tasks.prep.rows import examples_of
from thinktune.tasks.prep.selection import Positions
from thinktune.tasks.prep.sources import Source, open_dataset, records_of
from thinktune.tasks.prep.spool import Spool
from thinktune.tasks.runtime.entry import Context
from thinktune.text.conversation import Unusable

HELD_OUT = "held-out"


class TestSets:
    """The test sets of a task."""

    __test__ = False  # no test of pytest's

    def __init__(self, task: PrepTask, context: Context) -> None:
        self._task = task
        self._context = context
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def indexes(self, spool: Spool, held_out: Positions) -> list[TestIndex]:
        """An index of each test set. Raises DataInvalid where one cannot be read."""
        found = []
        for name in self._task.data.test_sets:
            if name == HELD_OUT:
                own = (spool[position] for position in held_out.tolist())
                found.append(TestIndex(name, ((each.id, each.question) for each in own)))
            else:
                found.append(TestIndex(name, self._questions(name)))
        return found

    def _questions(self, name: str) -> Iterator[tuple[str, str]]:
        entry = self._task.test_sets.get(name)
        if entry is None:
            entry = DatasetEntry(license="own", format="columns", description="own")
            source = Source(name, name, records_of(data_files(name)))
            data = DataSpec(dataset="file", path=name, require_reasoning=False)
        else:
            folder = self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="thinktune-test-")
            )
            source = open_dataset(entry, self._context, Path(folder))
            data = DataSpec(dataset=name, require_reasoning=False)
        return _asked(source, data, entry)


def _asked(source: Source, data: DataSpec, entry: DatasetEntry) -> Iterator[tuple[str, str]]:
    head: list[Record] = list(islice(source.records, HEAD_ROWS))
    rows = [record.row for record in head if record.row is not None]
    layout = recognize(rows, data, entry, source.place)
    for record in chain(head, source.records):
        if record.row is None:
            continue
        try:
            for example in examples_of(record.row, layout, data).examples:
                yield example.id, f"{example.question}\n{example.options or ''}".strip()
        except Unusable:
            continue
