"""Where things are in the store: the only place that spells a key."""

from thinktune.spec.task import Stage


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


def parts_prefix(run: str) -> str:
    """Finished batches of a running evaluation: what a restart need not ask again."""
    return f"{stage_prefix(run, 'evaluate')}/parts"


def cache_prefix(kind: str, name: str, revision: str) -> str:
    """A model or dataset fetched once: `cache/<kind>/<owner>--<name>@<revision>`."""
    return f"cache/{kind}/{name.replace('/', '--')}@{revision}"
