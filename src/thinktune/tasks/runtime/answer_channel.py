"""Stdout for an answer alone, where libraries and their processes write to it as well.

Called by programs of the tasks that answer the command line (`launch.local.ask_module`).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def answer_channel() -> Iterator[TextIO]:
    """What is written to it arrives on stdout. All else that this process and those that it starts
    write there goes to stderr meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as answer:
            yield answer
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
