"""Objects on scratch disk, read again in any order: what a dataset has too many of for memory.

Called by `spool` and `near_duplicates`.
"""

import os
import pickle
import tempfile
from array import array
from typing import Any

BUFFER = 4 << 20


class Packed:
    """Appended to, then read by position."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="thinktune-rows-", buffering=BUFFER)  # noqa: SIM115
        self._offsets = array("Q", [0])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()

    def append(self, value: object) -> None:
        """Adds one behind the others."""
        data = value if isinstance(value, bytes) else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._file.write(data)
        self._offsets.append(self._offsets[-1] + len(data))

    def read(self, position: int) -> bytes:
        """One as it was written: bytes as they came, other objects pickled."""
        self._file.flush()
        start, end = self._offsets[position], self._offsets[position + 1]
        return os.pread(self._file.fileno(), end - start, start)

    def load(self, position: int) -> Any:
        """An object that is not bytes."""
        return pickle.loads(self.read(position))
