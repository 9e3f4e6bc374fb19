"""Where a server's files go, and the stop that does not wait for them.

Called by `server` and by `nodes`.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from thinktune.schema.exit_codes import ExitCode
from thinktune.tasks.serve.log import say

T = TypeVar("T")


def pod_folder() -> Path:
    """The same one after each restart of a container, whose disk stays: files that are there and
    right are kept. It is also the same on every node: vLLM passes paths of adapters on from the
    first one."""
    return Path(tempfile.gettempdir()) / "thinktune-serve"


@contextmanager
def own_folder() -> Iterator[Path]:
    """One that is gone at the end, for a server that is one of several on a machine."""
    with tempfile.TemporaryDirectory(prefix="thinktune-serve-") as folder:
        yield Path(folder)


async def brought(
    bring: Callable[[], T], stopped: asyncio.Event, *, leaves: Path | None = None
) -> T:
    """What `bring` gives, from a thread. Where the server is stopped before, its process ends here:
    a thread can't be interrupted, and the rest of a base model takes minutes. `leaves`: a folder
    that is removed then."""
    bringing = asyncio.create_task(asyncio.to_thread(bring))
    asked = asyncio.create_task(stopped.wait())
    await asyncio.wait({bringing, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not bringing.done():
        say("stops before its files are here")
        if leaves is not None:
            shutil.rmtree(leaves, ignore_errors=True)
        os._exit(ExitCode.DONE)
    return await bringing
