"""The manifest: what an artifact is, written last; a reader trusts nothing without one."""

from typing import Annotated

from pydantic import Field

from thinktune.schema.closed import Closed

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Metric = float | int | str | bool | None


class FileEntry(Closed):
    """One file of an artifact."""

    name: str
    """Path inside the artifact, with `/`."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Sha256


class Manifest(Closed):
    """One committed artifact: a stage's output, a checkpoint, a cached model."""

    format: int = 1
    """Version of this layout."""
    kind: str
    """`prep`, `train`, `evaluate`, `checkpoint`, `model`, `dataset`."""
    run: str | None
    """Run that made it; null for the caches, which runs share."""
    attempt: str
    """Folder under `attempts/` that holds the files."""
    files: tuple[FileEntry, ...]
    """Sorted by name."""
    inputs: dict[str, Sha256]
    """Digests of the manifests it was made from, by name."""
    task_sha256: Sha256 | None
    """Digest of the task, its store address left out."""
    template_sha256: Sha256 | None = None
    """Digest of the chat template and prompt that rendered the text."""
    revisions: dict[str, str] = {}
    """What `model` and `dataset` resolved to."""
    versions: dict[str, str] = {}
    """Versions of thinktune and of the libraries that made it."""
    metrics: dict[str, Metric] = {}
    """Figures worth having without opening the files."""
    created: str
    """UTC time in ISO 8601."""


class Progress(Closed):
    """Live state of a stage, at `<stage>/progress.json`; overwritten, never trusted."""

    stage: str
    phase: str
    """What it is doing: `train`, `generate base`, …"""
    done: int
    of: int
    unit: str
    """What is counted: `steps`, `rows`, `questions`."""
    eta_s: float | None
    """Seconds left of this phase; null until it can be told."""
    figures: dict[str, Metric] = {}
    """Loss, tokens/s and the like."""
    attempt: str
    heartbeat: str
    """UTC time in ISO 8601 at which this was written."""
