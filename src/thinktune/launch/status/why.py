"""Why a run is where it is: Job, pods, events, exit codes, error lines, manifests; one paragraph.

`explain` is pure: what it needs was observed before. Called by `why`, and by whoever follows a run
and sees it fail.
"""

from collections.abc import Callable, Sequence

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import QUEUE_LABEL, WAITS, Kube, newest_last
from thinktune.launch.cluster.kube_messages import (
    created_workload,
    failed_exit_code,
    is_quota,
    is_uncovered_resource,
)
from thinktune.launch.status.observed import Observed
from thinktune.launch.status.pod_status import (
    Diagnosis,
    asks,
    last_said,
    never_starts,
    node_said,
    terminated,
    unschedulable,
)
from thinktune.schema.exit_codes import EXIT_CODES, ExitCode
from thinktune.schema.stages import STAGE_INFO
from thinktune.schema.termination import split_error

IDLE_S = 600
"""Without a heartbeat for so long, a running stage is stuck."""
REFUSED_TIMES = 3
"""Pods that the API server refused, one after the other, until we take it to mean it."""


def look(each: Observed, kube: Kube) -> Diagnosis:
    """Explains a stage, asking for events where they matter."""
    return explain(each, kube.events)


def explain(each: Observed, events: Callable[[Object], list[Object]]) -> Diagnosis:
    """Explains a stage; `events` gives the events about an object, the newest last."""
    match each.state:
        case "done":
            return _done(each)
        case "absent":
            before = STAGE_INFO[each.stage].inputs
            return Diagnosis(
                f"{each.stage} of {each.run} was not submitted",
                (),
                f"`thinktune submit RECIPE --stage {each.stage}` does"
                + (f", after {before[-1]}." if before else "."),
            )
        case "stopped":
            return _stopped(each)
        case "stopping":
            return Diagnosis(f"{each.stage} is being stopped", (), "Its pod commits and ends.")
        case "waiting":
            return _waiting(each, events)
        case "failed":
            return _failed(each, events)
        case "pending":
            return _pending(each, events)
        case "running":
            return _running(each)


def _done(each: Observed) -> Diagnosis:
    assert each.manifest is not None
    files = len(each.manifest.files)
    made = f"{files} {'file' if files == 1 else 'files'}, committed {each.manifest.created}"
    return Diagnosis(
        f"Nothing is wrong: {each.stage} of {each.run} is done",
        (made,),
        f"`thinktune fetch {each.run} --stage {each.stage}` brings it here.",
    )


def _stopped(each: Observed) -> Diagnosis:
    evidence = []
    if each.progress:
        done = f"{each.progress.done}/{each.progress.of} {each.progress.unit}"
        evidence.append(f"It was at {done} on {each.progress.heartbeat}")
    code: int = ExitCode.PREEMPTED
    if each.terminations:
        last = each.terminations[-1]
        evidence.append(f"Its last pod ended with {_named(last.code)}")
        evidence += [last.error_line] if last.error_line else []
        code = _known(last.code) if last.code else code
    return Diagnosis(
        f"{each.stage} of {each.run} has no Job any more: canceled, uninstalled or expired",
        tuple(evidence),
        "What it committed is kept; submit the same recipe again to go on.",
        code,
        hopeless=True,
    )


def _waiting(each: Observed, events: Callable[[Object], list[Object]]) -> Diagnosis:
    assert each.job is not None
    annotations = each.job["metadata"].get("annotations") or {}
    queue = (each.job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue:
        return _queued(each, queue, events)
    if WAITS in annotations:
        before = STAGE_INFO[each.stage].inputs
        until = f"until {before[-1]} is committed" if before else "for its turn"
        return Diagnosis(
            f"{each.stage} waits {until}, and holds no GPU meanwhile",
            (),
            "The conductor starts it then, or whoever follows the run. Where neither is there any"
            " more, submit again.",
        )
    return Diagnosis(
        f"{each.stage} is suspended",
        ("spec.suspend is true",),
        f'kubectl patch job {each.release} --type=merge -p \'{{"spec":{{"suspend":false}}}}\'',
        ExitCode.SERVICE_UNAVAILABLE,
    )


def _queued(each: Observed, queue: str, events: Callable[[Object], list[Object]]) -> Diagnosis:
    """By what Kueue says of the Workload that it made of the Job, or of the Job it stopped."""
    assert each.job is not None
    about_job = events(each.job)
    taken = [e for e in about_job if e.get("reason") == "CreatedWorkload"]
    made = [name for e in taken if (name := created_workload(e.get("message", "")))]
    about = [e for e in about_job if e.get("reason") == "Stopped"]
    about += events({"kind": "Workload", "metadata": {"name": made[-1]}}) if made else []
    said = tuple(text for e in newest_last(about)[-1:] if (text := e.get("message")))
    remedy = f"`kubectl describe localqueue {queue}` shows what is before it."
    if said and is_uncovered_resource(said[0]):
        remedy = (
            "Its ClusterQueue must cover that resource (coveredResources), or Kueue's configuration"
            " leave it out (resources.excludeResourcePrefixes)."
        )
    return Diagnosis(f"{each.stage} waits in Kueue's queue {queue}", said, remedy)


def _failed(each: Observed, events: Callable[[Object], list[Object]]) -> Diagnosis:
    condition = each.condition("Failed") or {}
    reason, message = condition.get("reason", ""), condition.get("message", "")
    evidence = [f"Job {each.release}: {reason}, {message}" if message else f"Job: {reason}"]
    if reason == "DeadlineExceeded":
        remedy = "Raise deadline_hours in the cluster file and submit again: it goes on."
        cause = f"{each.stage} ran longer than it may"
        return Diagnosis(cause, tuple(evidence), remedy, ExitCode.INTERNAL, hopeless=True)
    if each.condition("Complete"):
        return Diagnosis(
            f"{each.stage} ended well, but its artifact is not in the store",
            tuple(evidence),
            "Is `store` of the cluster file the one that it was submitted with? If so, the artifact"
            " was removed, and the same submit makes it anew.",
            ExitCode.INPUT_MISSING,
            hopeless=True,
        )
    ended = [end for pod in each.pods if (end := terminated(pod)) is not None]
    if ended and ended[0].get("reason") == "OOMKilled":
        return _oom(each, evidence)
    told = each.own_terminations
    line = last_said(ended) or (told[-1].error_line if told else "")
    code = next((int(e["exitCode"]) for e in ended), told[-1].code if told else ExitCode.INTERNAL)
    if reason == "PodFailurePolicy":
        code = failed_exit_code(message) or code
    if not ended and not told and each.job is not None:
        refused = [e for e in events(each.job) if e.get("type") == "Warning"]
        evidence += [e.get("message", "") for e in refused[-1:]]
    evidence += node_said(each.pods)
    cause = f"{each.stage} failed with {_named(code)}"
    error = split_error(line)
    if error is not None:
        fault, remedy = error
        evidence.insert(0, fault)
        remedy = f"{remedy[:1].upper()}{remedy[1:]}." if remedy else ""
    else:
        evidence += [f"Its last line: {line}"] if line else []
        remedy = f"`thinktune logs {each.run} --stage {each.stage}` shows the whole of it."
    again = "Then submit again: it goes on from what is committed."
    return Diagnosis(
        cause, tuple(evidence), f"{remedy} {again}".strip(), _known(code), hopeless=True
    )


def _oom(each: Observed, evidence: list[str]) -> Diagnosis:
    more = "Choose hardware with more host memory, or lower data.max_tokens; then submit again."
    if STAGE_INFO[each.stage].gpus == "none":
        more = "Raise prep.memory_gib in the cluster file, or filter more rows; then submit again."
    return Diagnosis(
        f"{each.stage} took more host memory than its pod has, and the kernel ended it (OOMKilled)",
        tuple(evidence),
        more,
        ExitCode.INTERNAL,
        hopeless=True,
    )


def _pending(each: Observed, events: Callable[[Object], list[Object]]) -> Diagnosis:
    assert each.job is not None
    if not each.pods:
        refused = _refusals(events(each.job))
        if refused:
            said = str(refused[-1].get("message", ""))
            times = sum(int(e.get("count") or 1) for e in refused)
            return Diagnosis(
                f"{each.stage} gets no pod",
                (said,),
                "Fix what the API server names: quota, Pod Security, a missing account.",
                ExitCode.SERVICE_UNAVAILABLE,
                # A quota frees up, and a webhook may fail once; the Job tries again.
                hopeless=times >= REFUSED_TIMES and not is_quota(said),
            )
        return Diagnosis(
            f"{each.stage} was submitted a moment ago", (), "Its pod is not there yet."
        )
    waiting = [pod for pod in each.pods if pod["status"].get("phase") == "Pending"]
    if not waiting:
        return Diagnosis(f"{each.stage} is between two pods", tuple(node_said(each.pods)), "")
    return _pending_pod(each, waiting, events)


def _refusals(events: Sequence[Object]) -> list[Object]:
    """The events that tell of pods refused by the API server since it last took one."""
    found: list[Object] = []
    for event in events:
        if event.get("reason") == "SuccessfulCreate":
            found = []
        elif event.get("reason") == "FailedCreate":
            found.append(event)
    return found


def _pending_pod(
    each: Observed, pods: Sequence[Object], events: Callable[[Object], list[Object]]
) -> Diagnosis:
    """The first of its pods that does not start."""
    pod = next((p for p in pods if never_starts(p) or unschedulable(p)), pods[0])
    stuck = never_starts(pod)
    if stuck is not None:
        return stuck
    unscheduled = unschedulable(pod)
    if unscheduled is not None:
        return Diagnosis(
            f"{each.stage} finds no node",
            (unscheduled, asks(pod)),
            "Free or add such a node, or submit for hardware that is there"
            " (`thinktune plan RECIPE --all-hardware`).",
            ExitCode.SERVICE_UNAVAILABLE,
        )
    volumes = [e for e in events(pod) if e.get("type") == "Warning"]
    if volumes:
        said = volumes[-1].get("message", "")
        return Diagnosis(
            f"{each.stage} has a node but does not start",
            (said,),
            f"`kubectl describe pod {pod['metadata']['name']}` shows the rest.",
            ExitCode.SERVICE_UNAVAILABLE,
        )
    return Diagnosis(
        f"{each.stage} is about to start", (f"pod {pod['metadata']['name']} is made",), ""
    )


def _running(each: Observed) -> Diagnosis:
    age = each.heartbeat_age_s()
    evidence = []
    if each.progress:
        done = f"{each.progress.done}/{each.progress.of} {each.progress.unit}"
        evidence.append(f"It is at {done}")
    evidence += node_said(each.pods)
    if each.restarts:
        last = each.own_terminations[-1] if each.own_terminations else None
        how = f"the last with {_named(last.code)}" if last else "the last without a word"
        line = f" ({last.error_line})" if last and last.error_line else ""
        pods = "1 pod" if each.restarts == 1 else f"{each.restarts} pods"
        evidence.append(f"{pods} ended before this one, {how}{line}")
    age = age if age is not None else each.running_s()
    if age is not None and age > IDLE_S:
        return Diagnosis(
            f"{each.stage} runs, but has said nothing for {age:.0f} s",
            tuple(evidence),
            "It ends itself when it makes no progress for execution.stall_s, and is started again;"
            f" `thinktune logs {each.run} --stage {each.stage}` shows its last lines.",
            ExitCode.INTERNAL,
        )
    return Diagnosis(f"Nothing is wrong: {each.stage} of {each.run} runs", tuple(evidence), "")


def _known(code: int) -> int:
    return code if code in set(ExitCode) else ExitCode.INTERNAL


def _named(code: int) -> str:
    if code in set(ExitCode):
        return f"exit code {code} ({EXIT_CODES[ExitCode(code)][0]})"
    return "SIGKILL (exit code 137)" if code == 137 else f"exit code {code}"
