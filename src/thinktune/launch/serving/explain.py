"""Why a server is in the state that it is in: cause, evidence and remedy. Called by `why` and by
whoever follows a server until it is ready."""

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.live import LiveServer, is_leaving, is_ready
from thinktune.launch.status.pod_status import (
    Diagnosis,
    asks,
    last_said,
    never_starts,
    unschedulable,
)
from thinktune.schema.exit_codes import EXIT_CODES, ExitCode
from thinktune.schema.termination import split_error

CRASHES = 3
"""Restarts after which a container that fails at its start is not waited for."""


def explain(server: LiveServer, kube: Kube) -> Diagnosis:
    """One paragraph's worth about a server."""
    if server.state == "stopping":
        return Diagnosis(f"{server.name} is being ended", (), "Its answers get their grace period.")
    if server.state == "scaled to 0":
        remedy = f"`thinktune serve --name {server.name} --replicas 1` starts it again."
        return Diagnosis(f"{server.name} is scaled to no replica", (), remedy)
    alive = [pod for pod in server.pods if not is_leaving(pod)]
    if not alive:
        return _no_pods(server)
    for pod in alive:
        if not is_ready(pod):
            found = _unready(server, pod, kube)
            if found is not None:
                return found
    return _ready(server)


def _ready(server: LiveServer) -> Diagnosis:
    desired, states = (
        server.desired,
        [server.replicas.get(pod["metadata"]["name"]) for pod in server.entrances],
    )
    wanted = desired.revision if desired is not None else None
    # A fault of an earlier change is over with that change.
    faults = [s.fault for s in states if s and s.fault and s.tried in (None, wanted)]
    if faults:
        return Diagnosis(
            f"{server.name} answers, but {len(faults)} of its replicas cannot follow a change",
            tuple(dict.fromkeys(faults)),
            f"`thinktune promote --undo --to {server.name}` goes back to the run before.",
            ExitCode.INPUT_MISSING,
        )
    behind = [s for s in states if desired and (s is None or s.revision != desired.revision)]
    if behind and desired is not None and server.ready:
        cause = f"{len(behind)} of {len(states)} replicas of {server.name} do not serve"
        cause += f" {desired.first.run} yet"
        remedy = "They fetch and load it; a kubelet looks at a ConfigMap every one to two minutes."
        return Diagnosis(cause, (), remedy)
    ready = f"{server.ready} of {server.wanted} replicas answer"
    if server.ready < server.wanted:
        return Diagnosis(f"{server.name} is not ready: {ready}", (), "The others are starting.")
    return Diagnosis(f"Nothing is wrong: {server.name} serves", (ready,), "")


def _no_pods(server: LiveServer) -> Diagnosis:
    conditions = (server.workload.get("status") or {}).get("conditions") or []
    for each in conditions:
        if each["type"] == "ReplicaFailure" and each["status"] == "True":
            return Diagnosis(
                f"{server.name} gets no pod",
                (str(each.get("message", "")),),
                "Fix what the API server names: quota, Pod Security, a missing account.",
                ExitCode.SERVICE_UNAVAILABLE,
            )
    return Diagnosis(f"{server.name} was installed a moment ago", (), "Its pod is not there yet.")


def _unready(server: LiveServer, pod: Object, kube: Kube) -> Diagnosis | None:
    """Why a pod is not ready; None where nothing hinders it that the others would not tell."""
    stuck = never_starts(pod)
    if stuck is not None:
        return stuck
    lacking = unschedulable(pod)
    if lacking is not None:
        return Diagnosis(
            f"{server.name} finds no node",
            (lacking, asks(pod)),
            "Free or add such a node, or serve on hardware that is there (--hardware). A rollout"
            " that needs a node more than there are: serve.surge: false in the cluster file.",
            ExitCode.SERVICE_UNAVAILABLE,
        )
    crashed = _crash(server, pod)
    if crashed is not None:
        return crashed
    if pod["status"].get("phase") == "Pending":
        warned = [e for e in kube.events(pod) if e.get("type") == "Warning"]
        if warned:
            said = str(warned[-1].get("message", ""))
            remedy = f"`kubectl describe pod {pod['metadata']['name']}` shows the rest."
            cause = f"{server.name} has a node but does not start"
            return Diagnosis(cause, (said,), remedy, ExitCode.SERVICE_UNAVAILABLE)
        return Diagnosis(f"{server.name} is about to start", (), "")
    if server.ready:
        return None
    name = pod["metadata"]["name"]
    return Diagnosis(
        f"{server.name} is loading its model",
        (f"pod {name} runs and does not answer yet",),
        f"`thinktune logs -f {server.name}` shows how far it is.",
    )


def _crash(server: LiveServer, pod: Object) -> Diagnosis | None:
    """How a container ended that is being started again."""
    for status in pod["status"].get("containerStatuses") or []:
        state = status.get("state") or {}
        ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
        if not ended or not ended.get("exitCode"):
            continue
        restarts = int(status.get("restartCount") or 0)
        if ended.get("reason") == "OOMKilled":
            return Diagnosis(
                f"{server.name} took more memory than its pod has, and the kernel ended it"
                " (OOMKilled)",
                (asks(pod),),
                "Serve on hardware with more host memory (--hardware), or with a shorter --window.",
                ExitCode.INTERNAL,
                hopeless=restarts >= CRASHES,
            )
        code = int(ended["exitCode"])
        line = last_said([ended])
        error = split_error(line)
        evidence, remedy = (line,) if line else (), f"`thinktune logs {server.name}` shows all."
        if error is not None:
            evidence, remedy = (error[0],), f"{error[1][:1].upper()}{error[1][1:]}."
        named = EXIT_CODES[ExitCode(code)] if code in set(ExitCode) else None
        known = f"exit code {code}" + (f" ({named[0]})" if named else "")
        never = named is not None and named[1] == "fail"
        return Diagnosis(
            f"{server.name} ended with {known}, {restarts} restarts",
            evidence,
            remedy,
            code if named is not None else ExitCode.INTERNAL,
            hopeless=(never and restarts >= 1) or restarts >= CRASHES,
        )
    return None
