"""How a pod's work ended, kept in the store beside its log: the pod itself is soon gone."""

import re

from thinktune.schema.closed import Closed

ERROR_PREFIX = "error: "
"""What tasks and the command line write before an error of ours."""
LONGEST = 2000
"""Most characters at the end of a log that a last line is looked for in."""
_ERROR_LINE = re.compile(r"^(?:\[rank \d+\] )?(error: .*)$", re.MULTILINE)


def error_line(log: str) -> str:
    """The last `error: …` line of a log, whichever rank said it; where there is none, its last
    line: that of a traceback says most."""
    found: list[str] = _ERROR_LINE.findall(log)
    lines = [line.strip() for line in log[-LONGEST:].splitlines() if line.strip()]
    return found[-1] if found else (lines or [""])[-1]


def split_error(line: str) -> tuple[str, str] | None:
    """What an `error: place: fault; remedy` line says is wrong, and what to do, which begins at the
    first `; ` (`ThinktuneError`); the latter is empty where it says nothing of that. None for any
    other line."""
    if not line.startswith(ERROR_PREFIX):
        return None
    fault, _, remedy = line.removeprefix(ERROR_PREFIX).partition("; ")
    return fault, remedy


class PodTermination(Closed):
    """How one pod of a stage ended, as stored at `<stage>/logs/<pod>.json`."""

    pod: str
    """Name of the pod."""
    began: str
    """Time at which the pod's process began, UTC, in ISO 8601."""
    ended: str
    """Time at which it ended, UTC, in ISO 8601."""
    code: int
    """Exit code of the stage; 128 + signal for a process that was killed."""
    error_line: str
    """The last `error: …` line of the log, else its last line; empty where there is none."""
