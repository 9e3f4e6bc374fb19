"""Whether a stage's artifact is there and is what this run would make. Called before it is run."""

from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.task import StageTask
from thinktune.store import Store, manifest_digest, read_manifest, verify


def finished(
    store: Store, task: StageTask, stage: Stage, earlier: dict[Stage, Manifest]
) -> Manifest | None:
    """The stage's committed artifact, checked: made by this task, from the artifacts of its inputs
    (`earlier` has at least those), files whole.

    Raises InputMissing where there is an artifact that is not what it should be.
    """
    prefix = stage_prefix(task.run, stage)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    inputs = {name: manifest_digest(earlier[name]) for name in STAGE_INFO[stage].inputs}
    if manifest.task_sha256 != task.result_digest() or manifest.inputs != inputs:
        fault = f"the artifact of {stage} was made by another recipe or from other inputs"
        remedy = "use another --run name, or remove it"
        raise InputMissing(store.location(prefix), fault, remedy)
    verify(store, prefix, manifest, checksums=store.local_path("manifest.json") is not None)
    return manifest
