"""Checks of a cluster before anything is submitted to it, each with its remedy.

What pods need is asked by a pod that the stages' own chart describes: their secrets, endpoint,
images, security rules and NetworkPolicy. Of a store that is opened by workload identity it cannot
tell: that is bound to the stages' own service accounts.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

from thinktune.launch.cluster.api import Forbidden, Object, Unauthenticated
from thinktune.launch.cluster.charts import LEAST_HELM, helm, manifests, values_text
from thinktune.launch.cluster.kube import INSTANCE_LABEL, Kube
from thinktune.launch.other_hardware import shortage_error
from thinktune.launch.preflight import (
    Request,
    check_nodes,
    check_trackers,
    secret_remedy,
    secrets_of,
)
from thinktune.launch.runs import stage_values
from thinktune.launch.status.pod_status import never_starts, unschedulable
from thinktune.schema.cluster import Cluster, Identity
from thinktune.schema.errors import ThinktuneError
from thinktune.schema.stages import STAGES, Stage
from thinktune.schema.termination import error_line, split_error
from thinktune.schema.values import TaskValues

PROBED: Stage = "prep"
"""The stage whose chart describes the pod that asks: it needs no GPU, so that any node takes it,
and reads and writes the store as every stage does."""
POLL_S = 1.0
POD_S = 90
"""How long images may take to be pulled."""
POLICY_S = 5.0
"""What a NetworkPolicy may take to hold for a new pod."""
PROBE_LINES = 3
"""How many last lines of the probe's log are read. Its error is the last of them."""
SMALL = {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"}
MADE = {
    "batch": ("jobs",),
    "": ("configmaps", "secrets", "serviceaccounts", "services", "pods"),
    "networking.k8s.io": ("networkpolicies",),
    "rbac.authorization.k8s.io": ("roles", "rolebindings"),
}
"""What the launcher makes and removes, Helm's releases included (they are secrets)."""
WATCHED = (("monitoring.coreos.com", "podmonitors"), ("monitoring.coreos.com", "prometheusrules"))
VERBS = ("create", "get", "list", "patch", "delete")
RIGHTS = (
    *(
        (verb, group, resource)
        for group, resources in MADE.items()
        for resource in resources
        for verb in VERBS
    ),
    ("update", "", "secrets"),
    ("get", "", "pods/log"),
    ("get", "", "events"),
    ("list", "", "events"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool | None
    """None: could not be found out."""
    said: str
    remedy: str = ""


def examine(
    cluster: Cluster, connect: Callable[[], Kube], request: Request | None
) -> Iterator[Check]:
    """One check after the other; those that need what failed are left out."""
    try:
        kube = connect()
        there = kube.namespace_object()
    except Unauthenticated as error:
        yield Check("context", False, error.fault, error.remedy)
        return
    except Forbidden as error:
        there = {}
        yield Check("namespace", None, error.fault, error.remedy)
    except ThinktuneError as error:
        yield Check("context", False, error.fault, error.remedy)
        return
    yield Check("context", True, kube.context)
    yield _helm()
    if there is None:
        remedy = f"kubectl create namespace {kube.namespace}"
        yield Check("namespace", False, f"{kube.namespace} is not there", remedy)
        return
    labels = there.get("metadata", {}).get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "none enforced")
    yield Check(
        "namespace", True, f"{kube.namespace}, Pod Security: {level} (our pods meet restricted)"
    )
    yield _rights(kube, cluster)
    found = [_secret(cluster, kube, name) for name in secrets_of(cluster)]
    yield from found
    if request is not None:
        yield from _trackers(request, kube)
        yield _nodes(request, kube)
        if all(check.ok is not False for check in found):
            yield from _in_a_pod(request, kube)


def _helm() -> Check:
    try:
        return Check("helm", True, helm("version", "--short").strip())
    except ThinktuneError as error:
        least = ".".join(map(str, LEAST_HELM))
        return Check("helm", False, f"{error.fault}; {least} or newer is needed", error.remedy)


def _rights(kube: Kube, cluster: Cluster) -> Check:
    missing = []
    rights = list(RIGHTS)
    if cluster.monitoring.enabled:
        rights += [(verb, *each) for each in WATCHED for verb in VERBS]
    for verb, group, resource in rights:
        kind, _, sub = resource.partition("/")
        if not kube.may(verb, group, kind, sub):
            missing.append(f"{verb} {resource}")
    if not missing:
        return Check("rights", True, f"all {len(rights)} that the launcher and Helm need")
    remedy = "have a role bound to you in this namespace: the built-in `admin` has them all"
    return Check("rights", False, f"you may not {', '.join(missing)}", remedy)


def _secret(cluster: Cluster, kube: Kube, name: str) -> Check:
    try:
        keys = kube.secret_keys(name)
    except Forbidden as error:
        return Check(f"secret {name}", None, error.fault, error.remedy)
    if keys is None:
        return Check(f"secret {name}", False, "is not there", secret_remedy(cluster, name))
    return Check(f"secret {name}", True, f"has {', '.join(keys)}")


def _trackers(request: Request, kube: Kube) -> Iterator[Check]:
    try:
        check_trackers(request, kube)
    except ThinktuneError as error:
        ok = None if isinstance(error, Forbidden) else False
        yield Check("tracking", ok, error.fault, error.remedy)


def _nodes(request: Request, kube: Kube) -> Check:
    try:
        found = check_nodes(request, kube, request.stages)
    except ThinktuneError as error:
        return Check("nodes", False, error.fault, error.remedy)
    if found.short is not None:
        short = shortage_error(request, request.stages, found)
        return Check("nodes", False, f"{found.said}; {short.fault}", short.remedy)
    return Check("nodes", None if found.nodes is None else True, found.said)


def _in_a_pod(request: Request, kube: Kube) -> Iterator[Check]:
    """Images and store, as a pod sees them."""
    values = {stage: stage_values(request.run, stage, request.cluster) for stage in STAGES}
    name = f"thinktune-doctor-{secrets.token_hex(3)}"
    try:
        pod, policy = _like_a_stage(name, values, kube.namespace)
        if policy is not None:
            kube.create_network_policy(policy)
        kube.create_pod(pod)
        yield from _of_pod(kube, name, _by_own_account(request.cluster.identity))
    except ThinktuneError as error:
        yield Check("pod", False, error.fault, error.remedy)
    finally:
        with contextlib.suppress(ThinktuneError):
            kube.delete_pod(name)
            kube.delete_owned(f"{INSTANCE_LABEL}={name}")


def _by_own_account(identity: Identity) -> bool:
    """Whether the store is opened to accounts that only a release makes."""
    bound = bool(identity.annotations or identity.pod_labels or identity.service_accounts)
    return bound and identity.secret is None and PROBED not in identity.service_accounts


def _of_pod(kube: Kube, name: str, by_identity: bool) -> Iterator[Check]:
    until = time.monotonic() + POD_S
    while True:
        pod = kube.pod(name) or {"status": {}}
        statuses = {s["name"]: s for s in pod["status"].get("containerStatuses") or []}
        settled = [s for s in statuses.values() if _is_settled(s)]
        if len(settled) == len(STAGES) or time.monotonic() > until:
            break
        time.sleep(POLL_S)
    if not statuses:
        said = unschedulable(pod) or "the pod does not start"
        yield Check("pod", False, said, "see kubectl get events")
        return
    for stage in STAGES:
        yield _image(statuses[_container(stage)], stage)
    end = (statuses["task"].get("state") or {}).get("terminated")
    if end is None:
        yield Check("store", None, f"the pod did not say within {POD_S} s", "try again")
        return
    if end["exitCode"] == 0:
        yield Check("store", True, "read, written, and written on condition from a pod")
        return
    said = error_line("\n".join(kube.log(name, tail=PROBE_LINES)))
    fault, remedy = split_error(said) or (said, "")
    yield Check("store", None if by_identity else False, fault, remedy)


def _is_settled(status: Object) -> bool:
    """Whether a container has ended or never will start."""
    ended = (status.get("state") or {}).get("terminated")
    return bool(ended or never_starts({"status": {"containerStatuses": [status]}}))


def _image(status: Object, stage: str) -> Check:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    if not waiting:
        return Check(f"image {stage}", True, status["image"])
    stuck = never_starts({"status": {"containerStatuses": [status]}})
    if stuck is None:
        return Check(f"image {stage}", None, f"{status['image']}: still {waiting.get('reason')}")
    return Check(f"image {stage}", False, f"{stuck.cause}: {stuck.evidence[0]}", stuck.remedy)


def _container(stage: str) -> str:
    return "task" if stage == PROBED else stage


def _like_a_stage(
    name: str, values: dict[Stage, TaskValues], namespace: str
) -> tuple[Object, Object | None]:
    """A pod as the chart makes it for the probed stage, but for its size and what it runs, in the
    images of all stages; and its NetworkPolicy, which lets it reach the store alone."""
    probed = values[PROBED]
    alone = probed.access.model_copy(update={"hub": False})
    values_here = probed.model_copy(update={"run": name, "access": alone})
    found = list(yaml.safe_load_all(manifests(name, namespace, values_text(values_here))))
    template = next(each for each in found if each["kind"] == "Job")["spec"]["template"]
    policy = next((each for each in found if each["kind"] == "NetworkPolicy"), None)
    spec = template["spec"]
    (like,) = spec.pop("containers")
    if probed.access.service_account is None:
        spec.pop("serviceAccountName")  # a release would make it
    like["volumeMounts"] = [each for each in like["volumeMounts"] if each["name"] == "scratch"]
    like["resources"] = {"requests": SMALL, "limits": SMALL}
    probe = ["python3", "-m", "thinktune.tasks.runtime.probe", _store(probed), str(POLICY_S)]
    containers = [
        like
        | {"name": _container(stage), "image": each.image.reference}
        | {"args": probe if stage == PROBED else ["true"]}
        for stage, each in values.items()
    ]
    spec |= {
        "containers": containers,
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}}],
        "activeDeadlineSeconds": 2 * POD_S,
        "terminationGracePeriodSeconds": 1,
    }
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, policy


def _store(values: TaskValues) -> str:
    return str(json.loads(values.task)["store"])
