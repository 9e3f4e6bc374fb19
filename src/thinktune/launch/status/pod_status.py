"""What pods show of why they do not start or have ended, from objects as the API server gives them.

Pure. Called by `why` and `doctor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube_messages import missing_secret
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.termination import error_line

NEVER_STARTS = {
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
"""Reasons for which a container waits until somebody changes something."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a stage is in the state that it is in, what shows that, and what to do about it."""

    cause: str
    evidence: tuple[str, ...]
    remedy: str
    code: int = ExitCode.DONE
    """Exit code of whoever waited for this; 0 where nothing is wrong."""
    hopeless: bool = False
    """Whether waiting longer will not help."""

    def paragraph(self) -> str:
        """The diagnosis as one paragraph of text."""
        said = "".join(f" {sentence.rstrip('.')}." for sentence in self.evidence)
        return f"{self.cause.rstrip('.')}.{said} {self.remedy}".strip()


def never_starts(pod: Object) -> Diagnosis | None:
    """A container that waits for ever: its image, its secret, its configuration."""
    for status in pod["status"].get("containerStatuses") or []:
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason not in NEVER_STARTS:
            continue
        if reason == "CreateContainerConfigError":
            secret = missing_secret(message)
            remedy = "Fix the configuration, then cancel and submit again."
            if secret:
                remedy = (
                    f"kubectl create secret generic {secret} --from-literal=AWS_ACCESS_KEY_ID=…"
                    " --from-literal=AWS_SECRET_ACCESS_KEY=… and it starts by itself."
                )
            cause = "The pod lacks something that it is configured with"
            return Diagnosis(cause, (message,), remedy, ExitCode.INPUT_MISSING, hopeless=True)
        if reason == "CreateContainerError":
            cause = "The container cannot be made"
            remedy = "Fix what it names, then cancel and submit again."
            return Diagnosis(cause, (message,), remedy, ExitCode.INTERNAL, hopeless=True)
        return Diagnosis(
            f"The image {status['image']} cannot be pulled ({reason})",
            (message,),
            "Check images.registry, images.tag and images.pull_secrets in the cluster file;"
            " `make images REGISTRY=… PUSH=1` builds and pushes them.",
            ExitCode.INPUT_MISSING,
            hopeless=True,
        )
    return None


def unschedulable(pod: Object) -> str | None:
    """What the scheduler says of a pod that it has no node for."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    return None


def node_said(pods: Sequence[Object]) -> list[str]:
    """Why a node gave pods up: evicted, preempted, shut down."""
    said = [(pod["status"].get("reason"), pod["status"].get("message")) for pod in pods]
    return [f"A pod was ended by its node: {why}, {text}" for why, text in said if why and text][:1]


def asks(pod: Object) -> str:
    """What the pod requests of a node, in one sentence."""
    spec = pod["spec"]
    limits = spec["containers"][0].get("resources", {}).get("limits", {})
    asked = [f"{limits[k]} {k}" for k in ("nvidia.com/gpu", "cpu", "memory") if k in limits]
    labels = [f"{k}={v}" for k, v in (spec.get("nodeSelector") or {}).items()]
    return f"It asks for {', '.join(asked)}" + (
        f" on a node with {', '.join(labels)}" if labels else ""
    )


def terminated(pod: Object) -> Object | None:
    """How its container ended badly, if it did."""
    for status in pod["status"].get("containerStatuses") or []:
        ended = (status.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return dict(ended)
    return None


def last_said(ended: Sequence[Object]) -> str:
    """From what kubelet kept of the log of pods that ended badly."""
    return next((line for each in ended if (line := error_line(each.get("message", "")))), "")
