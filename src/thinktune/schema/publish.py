"""A run that is handed on: what `export` and `publish` ask for, and what they answer."""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.closed import Closed
from thinktune.schema.manifest import FileEntry

HUB_SCHEME, S3_SCHEME = "hf://", "s3://"


class PublishRequest(Closed):
    """A run, and where its files go."""

    run: str
    """Id of the run."""
    store: str
    """Address of the store that holds it."""
    destination: str
    """`hf://owner/name`, `s3://bucket/prefix`, or the absolute path of a folder."""
    merged: bool = False
    """Whether the adapter is merged into the base model. Otherwise it goes alone."""
    private: bool = False
    """Whether a repository on the hub is to be private."""
    unpromoted: bool = False
    """Whether a run goes that its evaluation did not promote, or that has none."""
    dry_run: bool = False
    """Whether the files are made and nothing is written at the destination."""


class PublishReport(Closed):
    """What went where."""

    destination: str
    """Where the files are, for people: a path or an address."""
    judged: str
    """What the evaluation says of the run."""
    files: tuple[FileEntry, ...]
    """All files of the export."""
    sent: tuple[str, ...]
    """Names of those that were written now, or, in a dry run, would be; the others were there."""
    outcome: Literal["written", "unchanged", "dry run"]
    """Whether anything was written."""
    total_bytes: Annotated[int, Field(ge=0)]
    """Size of all files, in bytes."""
