"""What Kubernetes and Kueue tell in prose alone: facts for which their objects have no field.

Each text is matched here and nowhere else, beside the source that writes it. Callers look at the
reason or the field first. Used by `api`, `charts`, `why` and `pod_status`.
"""

import re

_EXIT_CODE = re.compile(r"exit code (\d+)")
_MISSING_SECRET = re.compile(r'secret "([^"]+)" not found')
_WORKLOAD = re.compile(r"Created Workload: [^/]+/(\S+)")


def is_missing_right(message: str) -> bool:
    """Whether a 403 is about a right that we lack, and not about a rule: quota, Pod Security and
    webhooks refuse with the same status and the same reason, `Forbidden`.

    Source: apiserver, endpoints/handlers/responsewriters/errors.go (`User "…" cannot list …`).
    """
    return " cannot " in message


def refusal_remedy(message: str) -> str:
    """What to do about a 403, which the API server answered to us or to helm."""
    if is_missing_right(message):
        return "ask for a role in this namespace; `thinktune doctor` lists what is needed"
    return "change what it names, or ask who runs the cluster"


def is_quota(message: str) -> bool:
    """Whether a pod was refused for a ResourceQuota, which frees up again; the event's reason is
    `FailedCreate` for every refusal.

    Source: kubernetes, plugin of the apiserver's resourcequota admission, controller.go.
    """
    return "exceeded quota" in message


def failed_exit_code(message: str) -> int | None:
    """The exit code for which a podFailurePolicy ended a Job (reason `PodFailurePolicy`), after its
    pods are gone.

    Source: kubernetes, pkg/controller/job/pod_failure_policy.go.
    """
    found = _EXIT_CODE.search(message)
    return int(found[1]) if found else None


def missing_secret(message: str) -> str | None:
    """The Secret for which a container waits with `CreateContainerConfigError`.

    Source: kubernetes, pkg/kubelet/kubelet_pods.go.
    """
    found = _MISSING_SECRET.search(message)
    return found[1] if found else None


def created_workload(message: str) -> str | None:
    """The Workload that Kueue made of a Job (reason `CreatedWorkload`): to list Workloads takes a
    right that users need not have.

    Source: kueue, pkg/controller/jobframework/reconciler.go.
    """
    found = _WORKLOAD.search(message)
    return found[1] if found else None


def is_uncovered_resource(message: str) -> bool:
    """Whether a Workload waits for a resource that its ClusterQueue does not cover.

    Source: kueue, pkg/scheduler/flavorassigner/flavorassigner.go.
    """
    return "unavailable in ClusterQueue" in message
