"""The manifest: what an artifact contains. It is written last, and readers ignore artifacts without
a manifest."""

from typing import Annotated

from pydantic import Field

from thinktune.schema.closed import Closed, added

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MetricValue = float | int | str | bool | None
"""One figure of a manifest or of a row of `metrics.jsonl`."""


class AdapterSource(Closed):
    """An adapter that a training started from."""

    run: str
    """Run that made the adapter."""
    sha256: Sha256
    """SHA-256 of its `adapter_model.safetensors`, in hexadecimal."""


class FileEntry(Closed):
    """One file of an artifact."""

    name: str
    """Path of the file within the artifact, with `/` as separator."""
    size: Annotated[int, Field(ge=0)]
    """Size of the file, in bytes."""
    sha256: Sha256
    """SHA-256 of the file, in hexadecimal."""


class Manifest(Closed):
    """One committed artifact: the output of a stage, a checkpoint, or a cached model or dataset."""

    format: int = 1
    """Version of the manifest's layout."""
    kind: str
    """Kind of artifact: `prep`, `train`, `evaluate`, `checkpoint`, `model` or `dataset`."""
    run: str | None
    """Run that made the artifact. Null for cached models and datasets, which runs share."""
    attempt: str
    """Folder under `attempts/` that contains the files."""
    files: tuple[FileEntry, ...]
    """Files of the artifact, sorted by name."""
    inputs: dict[str, Sha256]
    """Digests of the manifests that the artifact was made from, by name."""
    task_sha256: Sha256 | None
    """Result digest of the task (`StageTask.result_digest`). Null for an artifact without a
    task."""
    template_sha256: Sha256 | None = None
    """Digest of the chat template and prompt that rendered the text."""
    init_from: AdapterSource | None = added(None)
    """Adapter that a training started from. Null for a training from the beginning, and for all
    other artifacts."""
    revisions: dict[str, str] = {}
    """Revisions that were used of the model and the dataset."""
    versions: dict[str, str] = {}
    """Versions of thinktune and of the libraries that made the artifact."""
    metrics: dict[str, MetricValue] = {}
    """Metrics that can be read without opening the files."""
    created: str
    """Time of the commit, in UTC and ISO 8601."""


class Progress(Closed):
    """Live state of a stage, at `<stage>/progress.json`. It is overwritten as the stage goes on,
    and no artifact depends on it."""

    stage: str
    """Stage that this is the state of."""
    phase: str
    """What the stage is doing, such as `train` or `generate base`."""
    done: int
    """Number of units that are finished in this phase."""
    of: int
    """Number of units in this phase."""
    unit: str
    """What is counted, such as `steps`, `rows` or `questions`."""
    eta_s: float | None
    """Estimated seconds until this phase is finished. Null until there is an estimate."""
    figures: dict[str, MetricValue] = {}
    """Current metrics, such as loss and tokens/s."""
    attempt: str
    """Attempt that the stage is working on."""
    heartbeat: str
    """Time at which this was written, in UTC and ISO 8601."""
