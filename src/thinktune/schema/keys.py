"""Where things are in the store: the only place that spells a key."""

from thinktune.schema.stages import Stage


def stage_prefix(run: str, stage: Stage) -> str:
    """Artifact of a stage: `runs/<run>/<stage>`."""
    return f"runs/{run}/{stage}"


def checkpoints_prefix(run: str) -> str:
    """Checkpoints of a run's training: `runs/<run>/train/checkpoints`."""
    return f"{stage_prefix(run, 'train')}/checkpoints"


def checkpoint_prefix(run: str, step: int) -> str:
    """One checkpoint, named so that keys sort by step."""
    return f"{checkpoints_prefix(run)}/step-{step:06d}"


def progress_key(run: str, stage: Stage) -> str:
    """Live state of a stage."""
    return f"{stage_prefix(run, stage)}/progress.json"


def logs_prefix(run: str, stage: Stage) -> str:
    """What each pod of a stage printed, and how it ended."""
    return f"{stage_prefix(run, stage)}/logs"


def source_key(sha256: str, name: str) -> str:
    """A file of the user's own, brought into the store by `submit`."""
    return f"sources/{sha256}/{name}"


def parts_prefix(run: str) -> str:
    """Finished batches of a running evaluation: what a restart need not ask again."""
    return f"{stage_prefix(run, 'evaluate')}/parts"


def cache_prefix(kind: str, name: str, revision: str) -> str:
    """A model or dataset fetched once: `cache/<kind>/<owner>--<name>@<revision>`."""
    return f"cache/{kind}/{name.replace('/', '--')}@{revision}"


def replicas_prefix(server: str) -> str:
    """What each replica of a server serves: `servers/<server>/replicas`."""
    return f"servers/{server}/replicas"


def replica_prefix(server: str, pod: str) -> str:
    """State of one replica, which it removes at its end."""
    return f"{replicas_prefix(server)}/{pod}"


def replica_key(server: str, pod: str) -> str:
    """The object with that state."""
    return f"{replica_prefix(server, pod)}/state.json"
