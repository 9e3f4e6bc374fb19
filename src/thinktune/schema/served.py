"""Which runs a server serves, while it runs: desired by whoever promotes, and had by each replica.

The launcher writes `Desired` into a ConfigMap, every replica follows it by itself, at a restart or
a scale-up too, and says in the store how far it is.
"""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import Sha256

SERVED_FILE: Final = "served.json"
"""Name of the file in the ConfigMap."""


class DesiredRun(Closed):
    """One run with its adapter."""

    run: str
    """Id of the run, which is also the name of its model."""
    train_sha256: Sha256
    """Digest of the manifest of its adapter. A replica refuses another one."""
    unpromoted: bool = False
    """Whether it is served although its evaluation did not promote it, or there is none."""

    def is_of(self, run: str, train_sha256: str) -> bool:
        """Whether it is that adapter, not another one of a run of the same id."""
        return (self.run, self.train_sha256) == (run, train_sha256)


class Desired(Closed):
    """What a server is to serve."""

    revision: Count
    """Number of this state. Each change has a higher one."""
    runs: Annotated[tuple[DesiredRun, ...], Field(min_length=1)]
    """The runs. The first answers under the server's own name."""
    former: DesiredRun | None = None
    """The run that answered under the server's name before, to which `promote --undo` goes back."""

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        names = [each.run for each in self.runs]
        if len(set(names)) < len(names):
            raise ValueError("a run is named twice; name it once")
        return self

    @property
    def first(self) -> DesiredRun:
        """The run behind the server's own name."""
        return self.runs[0]

    def promoted(self, run: DesiredRun, slots: int) -> Self:
        """With that run behind the server's name. Those before it stay beside it, as far as there
        are places for adapters, so that nobody who asks for them by name is turned away."""
        others = tuple(each for each in self.runs if each.run != run.run)
        former = self.first if self.first.run != run.run else self.former
        changes = {"revision": self.revision + 1, "former": former}
        return self.model_copy(update=changes | {"runs": (run, *others)[:slots]})


class ReplicaState(Closed):
    """How far one replica is, as it says in the store."""

    pod: str
    """Name of its pod."""
    revision: Annotated[int, Field(ge=0)]
    """Revision of the state that it serves."""
    runs: tuple[str, ...]
    """Runs that it serves. The first answers under the server's name."""
    fault: str | None = None
    """Why it does not serve a later revision, if it has seen one."""
    tried: Annotated[int, Field(ge=0)] | None = None
    """Revision that the fault is of. Null without a fault, and where the revision itself could not
    be read."""
    written: str
    """Time at which this was written, in UTC and ISO 8601."""
