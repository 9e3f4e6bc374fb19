"""What is to be started in which order: the stages of a run that was submitted as a whole.

The launcher follows it (`submit --follow`), and so does the conductor's Job (`submit --detach`),
which gets it as JSON from a ConfigMap.
"""

from thinktune.schema.closed import Closed
from thinktune.schema.manifest import Sha256
from thinktune.schema.stages import STAGES, Stage


class PipelineStage(Closed):
    """One stage, installed and perhaps waiting."""

    stage: Stage
    release: str
    """Helm release, and name of its Job."""
    task_sha256: Sha256
    """`StageTask.result_digest()`: which artifact it is to commit."""


class Pipeline(Closed):
    """One run on one cluster."""

    run: str
    store: str
    namespace: str
    stages: tuple[PipelineStage, ...]
    """In the order in which they run."""

    def joined(self, before: "Pipeline | None") -> "Pipeline":
        """This, and the stages that only `before` has."""
        others = before.stages if before is not None else ()
        stages = {each.stage: each for each in (*others, *self.stages)}
        ordered = tuple(stages[stage] for stage in STAGES if stage in stages)
        return self.model_copy(update={"stages": ordered})
