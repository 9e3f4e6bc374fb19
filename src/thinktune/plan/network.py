"""How large texts are, and how long a model takes over the network: assumptions."""

from thinktune.plan import shapes
from thinktune.schema.catalog import ModelEntry

BYTES_PER_TOKEN = 4
"""Bytes of text for each token; an assumption, right for English."""
HUB_BYTES_PER_S = 100e6
"""Speed of a download from the hub; an assumption (about 1 Gbit/s)."""
STORE_BYTES_PER_S = 200e6
"""Speed at which a pod reads and writes the store; an assumption."""


def download_seconds(model: ModelEntry) -> float:
    """Seconds from the hub; a model that a package contains is there already."""
    return 0.0 if model.packaged else shapes.released_bytes(model) / HUB_BYTES_PER_S


def fetch_seconds(model: ModelEntry) -> float:
    """Seconds from or to the store."""
    return shapes.released_bytes(model) / STORE_BYTES_PER_S
