"""What `thinktune compare --html` asks of the evaluation's reports."""

from thinktune.schema.closed import Closed


class ComparisonRequest(Closed):
    """A page that sets runs beside each other."""

    store: str
    """Address of the store."""
    runs: tuple[str, ...]
    """Ids of the runs, in the order of the page."""
    metrics: tuple[str, ...]
    """Metrics that are shown; empty for all."""
    out: str
    """Path of the page."""
