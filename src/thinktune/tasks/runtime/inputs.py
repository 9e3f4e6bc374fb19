"""What a stage reads of the stages before it: their manifests, and through them their files.

Called by every stage but the first.
"""

from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import Stage
from thinktune.store import Store, read_manifest


def stage_manifest(store: Store, run: str, stage: Stage) -> Manifest:
    """The committed artifact of an earlier stage. Raises InputMissing."""
    prefix = stage_prefix(run, stage)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        fault = f"stage {stage} of run {run} has committed nothing"
        raise InputMissing(store.location(prefix), fault, f"run {stage} first")
    return manifest
