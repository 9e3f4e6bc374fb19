"""A run as a chain of stages: where it is, whether a link was exchanged under the next, whether
anybody goes on with it. Called by `why` and `logs`.
"""

from collections.abc import Sequence
from dataclasses import replace

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import WAITS
from thinktune.launch.status.observed import SUBMITTED, Observed
from thinktune.launch.status.pod_status import Diagnosis, never_starts, unschedulable
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.store import manifest_digest


def abandoned(
    stages: Sequence[Observed], conductor: Object | None, pods: Sequence[Object]
) -> Diagnosis | None:
    """Whether a stage waits that nobody is going to start; `pods` are the conductor's."""
    for number, each in enumerate(stages):
        marks = ((each.job or {}).get("metadata", {}).get("annotations")) or {}
        if each.state != "waiting" or WAITS not in marks or not _is_its_turn(number, stages):
            continue
        inputs = STAGE_INFO[each.stage].inputs
        waits = f"{each.stage} waits although " + (
            f"{inputs[-1]} is committed" if inputs else "it needs no other stage"
        )
        conditions = (conductor or {}).get("status", {}).get("conditions") or []
        if conductor is not None and not conditions:
            stuck = _stuck_conductor(pods[0]) if pods else None
            if stuck is None:
                continue
            return replace(stuck, cause=f"{waits}: {stuck.cause}")
        led = "its conductor has ended" if conductor else "it has no conductor"
        return Diagnosis(
            f"{waits}: {led}",
            tuple(str(c.get("message", "")) for c in conditions[-1:]),
            "Submit the same recipe again, followed or with --detach: it starts.",
            ExitCode.INPUT_MISSING,
        )
    return None


def _is_its_turn(number: int, stages: Sequence[Observed]) -> bool:
    """Whether all that a stage depends on is done, and none before it is still to end: a conductor
    starts the stages of a run in the order of the table."""
    before = stages[:number]
    done = {each.stage for each in before if each.state == "done"}
    at_work = any(each.state in SUBMITTED for each in before)
    return done.issuperset(STAGE_INFO[stages[number].stage].inputs) and not at_work


def _stuck_conductor(pod: Object) -> Diagnosis | None:
    stuck, no_node = never_starts(pod), unschedulable(pod)
    if stuck is not None:
        return replace(stuck, cause=f"its conductor does not start. {stuck.cause}")
    if no_node is not None:
        cause = "its conductor finds no node"
        return Diagnosis(cause, (no_node,), "Free or add one.", ExitCode.SERVICE_UNAVAILABLE)
    return None


def first_that_matters(stages: Sequence[Observed]) -> Observed:
    """The stage that a run is at: one that failed, else the first that is not done."""
    for wanted in (("failed",), ("running", "pending", "stopping"), ("waiting", "stopped")):
        for each in stages:
            if each.state in wanted:
                return each
    open_stages = [each for each in stages if each.state != "done"]
    return open_stages[0] if open_stages else stages[-1]


def broken_chain(stages: Sequence[Observed], of: Sequence[Stage]) -> Diagnosis | None:
    """Whether a stage, of those given, was made from another artifact than is there now."""
    manifests = {each.stage: each.manifest for each in stages if each.manifest}
    for stage, manifest in manifests.items():
        if stage not in of:
            continue
        for name, digest in manifest.inputs.items():
            before = next((m for s, m in manifests.items() if s == name), None)
            if before is None or manifest_digest(before) != digest:
                is_there = "is gone" if before is None else "is another one now"
                return Diagnosis(
                    f"{stage} was made from an artifact of {name} that {is_there}",
                    (f"{stage}'s manifest pins {name} at {digest[:12]}…",),
                    f"Delete {stage}'s artifact and submit again, or take another --run name.",
                    ExitCode.INPUT_MISSING,
                    hopeless=True,
                )
    return None
