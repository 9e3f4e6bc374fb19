"""How a pod's work ended, kept in the store beside its log: the pod itself is soon gone."""

from thinktune.spec.closed import Closed


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
