"""Whether a stage's artifact is there and is what this run would make. Called before it is run."""

from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import beside_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.task import StageTask
from thinktune.store import Store, manifest_digest, read_manifest, verify


def finished(
    store: Store, task: StageTask, stage: Stage, earlier: dict[Stage, Manifest]
) -> Manifest | None:
    """The stage's committed artifact, checked: made by this task, from the artifacts of its inputs
    (`earlier` has at least those), files whole. None where an artifact that it is to commit beside
    its own is missing: it then runs again, and its own stays what it is.

    Raises InputMissing where there is an artifact that is not what it should be.
    """
    prefix = stage_prefix(task.run, stage)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    of_stages = {str(n): manifest_digest(earlier[n]) for n in STAGE_INFO[stage].inputs}
    inputs = of_stages | _read_beside(store, task)
    if manifest.task_sha256 != task.result_digest() or manifest.inputs != inputs:
        fault = f"the artifact of {stage} was made by another recipe or from other inputs"
        remedy = "use another --run name, or remove it"
        raise InputMissing(store.location(prefix), fault, remedy)
    verify(store, prefix, manifest, checksums=store.local_path("manifest.json") is not None)
    return manifest if _made_beside(store, task, stage, manifest) else None


def _read_beside(store: Store, task: StageTask) -> dict[str, str]:
    """Digests of what is read beside the artifacts of stages, of what is there of it."""
    prefixes = {name: beside_prefix(task.run, name) for name in task.reads_beside()}
    found = {name: read_manifest(store, prefix) for name, prefix in prefixes.items()}
    return {name: manifest_digest(each) for name, each in found.items() if each is not None}


def _made_beside(store: Store, task: StageTask, stage: Stage, own: Manifest) -> bool:
    """Whether all is there that the stage commits beside its own artifact."""
    for name, made_by in task.commits_beside().items():
        prefix = beside_prefix(task.run, name)
        manifest = read_manifest(store, prefix)
        if manifest is None:
            return False
        if manifest.task_sha256 != made_by or manifest.inputs != {stage: manifest_digest(own)}:
            fault = "it was made by another recipe or from other inputs"
            remedy = "give the benchmark another name, use another --run name, or remove it"
            raise InputMissing(store.location(prefix), fault, remedy)
    return True
