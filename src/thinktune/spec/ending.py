"""How a pod's work ended, kept in the store beside its log: the pod itself is soon gone."""

import re

from thinktune.spec.closed import Closed

_LAST_WORDS = re.compile(r"^(?:\[rank \d+\] )?(error: .*)$", re.MULTILINE)


def last_words(log: str) -> str:
    """The last `error: …` line of a log, whichever rank said it; empty where there is none."""
    found: list[str] = _LAST_WORDS.findall(log)
    return found[-1] if found else ""


class Ending(Closed):
    """One pod of a stage, at `<stage>/logs/<pod>.json`."""

    pod: str
    began: str
    """UTC time in ISO 8601."""
    ended: str
    code: int
    """Exit code; 128 + signal for a killed process."""
    last_words: str
    """The last `error: …` line; empty where there is none."""
