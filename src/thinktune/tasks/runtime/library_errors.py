"""Errors of libraries that the entry point does not import, by what they are: facts alone.

Each is recognized here and nowhere else, beside the source that raises it. Called by `entry`.
"""

import re
import sys

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Whether the GPU's memory ran out.

    Source: torch.OutOfMemoryError, which nobody can raise before torch is loaded.
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def rust_errno(error: Exception) -> int | None:
    """The errno of an I/O error in a Rust library such as safetensors, whose exceptions have no
    field for it.

    Source: rust, library/std/src/io/error.rs (`No space left on device (os error 28)`).
    """
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
