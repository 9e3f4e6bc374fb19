"""What the stages of a run took, beside what the plan says of them.

Called by the command line. Times come from the manifests: an attempt's name says when it began, and
the manifest when it was committed.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from thinktune.plan.run import RunPlan
from thinktune.plan.training.comparison import PlanVsActual
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import STAGES, Stage


def stages_vs_actual(
    manifests: Mapping[Stage, Manifest], plan: RunPlan | None
) -> tuple[PlanVsActual, ...]:
    """Seconds of each stage that is finished, rows and questions, in pairs. `plan` is that of the
    recipe as it was run; without one, what was planned when the run was started."""
    found = []
    for stage in STAGES:
        if stage in manifests:
            manifest = manifests[stage]
            planned = _planned_s(stage, plan) if plan else _number(manifest, "planned_s")
            actual = attempt_seconds(manifest)
            found.append(PlanVsActual(what=f"{stage}_s", planned=planned, actual=actual))
    if "prep" in manifests:
        found.append(_rows(manifests["prep"], plan))
    if "evaluate" in manifests:
        found.append(_questions(manifests["evaluate"], plan))
    return tuple(found)


def attempt_seconds(manifest: Manifest) -> float | None:
    """Seconds from the beginning of the attempt that made the artifact to its commit. Earlier
    attempts and waiting for a node are not in it; None where the times cannot be read."""
    try:
        began = datetime.strptime(manifest.attempt.split("-")[0], "%Y%m%dT%H%M%S")
        ended = datetime.fromisoformat(manifest.created)
    except ValueError:
        return None
    seconds = (ended - began.replace(tzinfo=UTC)).total_seconds()
    return seconds if seconds >= 0 else None


def _planned_s(stage: Stage, plan: RunPlan) -> float | None:
    hours = next((each.hours for each in plan.stages if each.stage == stage), None)
    return None if hours is None else 3600 * hours


def _rows(manifest: Manifest, plan: RunPlan | None) -> PlanVsActual:
    planned = plan.prep.rows if plan else None
    return PlanVsActual(what="rows", planned=planned, actual=_number(manifest, "rows"))


def _questions(manifest: Manifest, plan: RunPlan | None) -> PlanVsActual:
    planned = plan.evaluation.questions if plan and plan.evaluation else None
    return PlanVsActual(what="questions", planned=planned, actual=_number(manifest, "questions"))


def _number(manifest: Manifest, name: str) -> float | None:
    value = manifest.metrics.get(name)
    return float(value) if isinstance(value, int | float) else None
