"""What is to be started in which order: the stages of a run that was submitted as a whole.

The launcher follows it (`submit --follow`), and so does the conductor's Job (`submit --detach`),
which gets it as JSON from a ConfigMap.
"""

from typing import Annotated

from pydantic import Field

from thinktune.schema.benchmark import absent_if_empty
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import Sha256
from thinktune.schema.stages import STAGES, Stage


class PipelineStage(Closed):
    """One stage of a pipeline: it is installed, and it may be waiting for the one before."""

    stage: Stage
    """Name of the stage."""
    release: str
    """Name of its Helm release, which is the name of its Job too."""
    task_sha256: Sha256
    """`StageTask.result_digest()`: which artifact it is to commit."""
    beside: Annotated[tuple[str, ...], Field(exclude_if=absent_if_empty)] = ()
    """Names in the run of what it is to commit beside that artifact."""


class Pipeline(Closed):
    """The stages of one run on one cluster, as they were submitted together."""

    run: str
    """Id of the run."""
    store: str
    """URL of the store that holds the run."""
    namespace: str
    """Kubernetes namespace of the stages' Jobs."""
    stages: tuple[PipelineStage, ...]
    """The stages, in the order in which they run."""

    def joined(self, before: "Pipeline | None") -> "Pipeline":
        """This, and the stages that only `before` has."""
        others = before.stages if before is not None else ()
        stages = {each.stage: each for each in (*others, *self.stages)}
        ordered = tuple(stages[stage] for stage in STAGES if stage in stages)
        return self.model_copy(update={"stages": ordered})
