"""Where things are in the store: the only place that spells a key."""

from thinktune.schema.stages import Stage


def stage_prefix(run: str, stage: Stage) -> str:
    """Artifact of a stage: `runs/<run>/<stage>`."""
    return f"runs/{run}/{stage}"


def beside_prefix(run: str, name: str) -> str:
    """Artifact that a stage commits beside its own, such as `runs/<run>/benchmarks/medqa`."""
    return f"runs/{run}/{name}"


def checkpoints_prefix(run: str) -> str:
    """Checkpoints of a run's training: `runs/<run>/train/checkpoints`."""
    return f"{stage_prefix(run, 'train')}/checkpoints"


def checkpoint_prefix(run: str, step: int) -> str:
    """One checkpoint, named so that keys sort by step."""
    return f"{checkpoints_prefix(run)}/step-{step:06d}"


def progress_key(run: str, stage: Stage) -> str:
    """Live state of a stage."""
    return f"{stage_prefix(run, stage)}/progress.json"


def task_key(run: str, stage: Stage) -> str:
    """The task file that a stage got when it last began. No artifact depends on it."""
    return f"{stage_prefix(run, stage)}/task.json"


def logs_prefix(run: str, stage: Stage) -> str:
    """What each pod of a stage printed, and how it ended."""
    return f"{stage_prefix(run, stage)}/logs"


def source_key(sha256: str, name: str) -> str:
    """A file of the user's own, brought into the store by `submit`."""
    return f"sources/{sha256}/{name}"


def parts_prefix(run: str) -> str:
    """Finished batches of a running evaluation: what a restart need not ask again."""
    return f"{stage_prefix(run, 'evaluate')}/parts"


def sheets_prefix(run: str) -> str:
    """Keys of the sheets in which people rate a run's answers."""
    return f"{stage_prefix(run, 'evaluate')}/sheets"


def ratings_key(run: str) -> str:
    """What people's ratings of a run came to, where somebody kept that."""
    return f"{sheets_prefix(run)}/ratings.json"


def likelihoods_prefix(run: str) -> str:
    """What an evaluation has measured of reference completions, by model."""
    return f"{stage_prefix(run, 'evaluate')}/likelihoods"


def timings_key(run: str, attempt: str) -> str:
    """How long one attempt of an evaluation generated answers; part of no artifact."""
    return f"{stage_prefix(run, 'evaluate')}/timings/{attempt}.json"


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
