"""An artifact of one large file, for the tests of what happens to it on its way."""

import hashlib
from pathlib import Path
from typing import Any

from thinktune.store import Store, commit, new_attempt

LARGE = 20 << 20
PREFIX = "runs/r1/train"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commit_it(store: Store, folder: Path) -> Any:
    return commit(
        store,
        PREFIX,
        folder,
        kind="train",
        run="r1",
        attempt=new_attempt(),
        inputs={},
        task_sha256=None,
        created="2026-01-01T00:00:00Z",
    )
