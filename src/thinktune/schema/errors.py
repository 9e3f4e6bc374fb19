"""Errors for people: the place, the fault, the remedy, and the exit code that goes with them.

Raise one of these for anything that a user, their data or their machine can cause; anything else
that escapes is ours and ends as `ExitCode.INTERNAL`.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

from thinktune.schema.exit_codes import ExitCode


class ThinktuneError(Exception):
    """`place: fault; remedy`, one paragraph, printed without a traceback.

    Its first `; ` is where the remedy begins, which may have others. One in the place or the fault,
    as in a message of somebody else's, is printed as a comma.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, place: str, fault: str, remedy: str) -> None:
        wrong = f"{place}: {fault}".replace("; ", ", ")
        super().__init__(f"{wrong}; {remedy}")
        self.place = place
        self.fault = fault
        self.remedy = remedy


class SpecInvalid(ThinktuneError):
    """A recipe, catalog entry, task or command line that says something it cannot."""

    exit_code = ExitCode.SPEC_INVALID


class DataInvalid(ThinktuneError):
    """A dataset that is not what its name or the recipe says."""

    exit_code = ExitCode.DATA_INVALID


class InputMissing(ThinktuneError):
    """An artifact of an earlier stage that is absent or does not match its manifest."""

    exit_code = ExitCode.INPUT_MISSING


class ServiceUnavailable(ThinktuneError):
    """The store, the hub or an API refused or did not answer."""

    exit_code = ExitCode.SERVICE_UNAVAILABLE


class InternalError(ThinktuneError):
    """A fault of ours that we can name."""

    exit_code = ExitCode.INTERNAL


class DeviceUnusable(ThinktuneError):
    """A disk that is full or read-only, a device that does not answer."""

    exit_code = ExitCode.DEVICE_UNUSABLE


class OutOfGpuMemory(ThinktuneError):
    """The plan and the GPU disagree."""

    exit_code = ExitCode.OUT_OF_GPU_MEMORY


class LossNotFinite(ThinktuneError):
    """Training diverged: the loss is NaN or infinite."""

    exit_code = ExitCode.LOSS_NOT_FINITE


class Preempted(ThinktuneError):
    """Asked to stop; everything up to here is committed and the same command resumes."""

    exit_code = ExitCode.PREEMPTED


class StageFailed(Exception):
    """A stage ended without its artifact; it, or who watched it, has said why. `code` is the exit
    code of the command that waited for it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


RENAMED = {"licence": "license", "conduct": "pipeline", "stock-sums": "inventory-sums"}
"""Settings and names of earlier versions, and what each is called now. `near_misses` names the new
one, however different it looks."""


def near_misses(word: str, known: Iterable[str], *, shown: int = 12) -> str:
    """Says what is known, nearest first: `did you mean 'h100x8'? known: h100x8, h200x8, …`."""
    names = sorted(known)
    if not names:
        return "none is known"
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if RENAMED.get(word) in names:
        close = [RENAMED[word]]
    listed = ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
    if not close:
        return f"known: {listed}"
    return f"did you mean {' or '.join(repr(name) for name in close)}? known: {listed}"
