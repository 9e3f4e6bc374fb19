"""Finished batches in the store, so that a restarted evaluation asks nothing twice.

Called by `stage`. A part is one JSON object written once; when two attempts race, the first to
write wins and the other reads what it wrote.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from thinktune.schema.keys import parts_prefix
from thinktune.store import ObjectMissing, Store
from thinktune.tasks.evaluate.samples import Sample


class Parts:
    """The parts of one evaluation, told apart by the digest of all that decides the answers."""

    def __init__(self, store: Store, run: str, identity: str) -> None:
        self._store = store
        self._prefix = f"{parts_prefix(run)}/{identity[:16]}"

    def get_or_make(
        self, name: str, make: Callable[[], Sequence[Sample]]
    ) -> tuple[list[Sample], bool]:
        """The samples of that part, and whether they were there already."""
        key = f"{self._prefix}/{name}.json"
        try:
            return self._read(key), True
        except ObjectMissing:
            pass
        rows = [asdict(sample) for sample in make()]
        self._store.put_if_absent(key, json.dumps(rows, ensure_ascii=False).encode())
        return self._read(key), False

    def _read(self, key: str) -> list[Sample]:
        return [Sample(**row) for row in json.loads(self._store.get(key))]
