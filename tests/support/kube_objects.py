"""The objects of a Kubernetes API server, in memory, with what the launcher relies on.

Resource versions that grow, conflicts, selectors, finalizers, and garbage that goes with its owner.
Source: kubernetes.io, API concepts; Garbage collection; Field selectors. Used by `kube_server`.
"""

import base64
import copy
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True)
class Resource:
    """One kind of objects, as discovery lists it."""

    group: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def qualified(self) -> str:
        """As messages name it: `jobs.batch`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS, JOBS = Resource("", "pods", "Pod"), Resource("batch", "jobs", "Job")
EVENTS, SECRETS = Resource("", "events", "Event"), Resource("", "secrets", "Secret")
NODES = Resource("", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = Resource("", "configmaps", "ConfigMap")
DEPLOYMENTS = Resource("apps", "deployments", "Deployment")
STATEFUL_SETS = Resource("apps", "statefulsets", "StatefulSet")
LEADER_WORKER_SETS = Resource("leaderworkerset.x-k8s.io", "leaderworkersets", "LeaderWorkerSet")
"""Known to clusters that have its controller; not to those of the tests, unless they add it."""
POLICIES = Resource("networking.k8s.io", "networkpolicies", "NetworkPolicy")
RESOURCES = (
    PODS, JOBS, EVENTS, SECRETS, NODES, NAMESPACES, CONFIG_MAPS, POLICIES,
    DEPLOYMENTS, STATEFUL_SETS,
    Resource("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
    Resource("", "services", "Service"),
    Resource("", "serviceaccounts", "ServiceAccount"),
    Resource("rbac.authorization.k8s.io", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
)  # fmt: skip


class Refused(Exception):
    """An answer other than 2xx, with what becomes of it in a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


def now() -> str:
    """As the API server writes it, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects; each method is one transaction."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ending_s: float | None = 0.0
        """How long a pod that runs takes to end once it is deleted; None: its node is lost."""
        self.quota: dict[str, int] = {}
        """Most objects of a resource, by its qualified name."""
        self._found: dict[tuple[Resource, str, str], Object] = {}
        self._ends: dict[str, float] = {}
        self._version = 0

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        with self.lock:
            self._settle()
            made = copy.deepcopy(body)
            metadata = made.setdefault("metadata", {})
            name = metadata.get("name") or f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
            if (resource, namespace, name) in self._found:
                message = f'{resource.qualified} "{name}" already exists'
                raise Refused(409, "AlreadyExists", message)
            self._check_quota(resource, namespace, name)
            metadata |= {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if resource.namespaced:
                metadata["namespace"] = namespace
            made |= {"apiVersion": resource.api_version, "kind": resource.kind}
            for key, text in made.pop("stringData", {}).items():
                made.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
            if resource in (JOBS, PODS, DEPLOYMENTS, STATEFUL_SETS, LEADER_WORKER_SETS):
                made["status"] = made.get("status") or {}
            self._keep(resource, made)
            return copy.deepcopy(made)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        with self.lock:
            self._settle()
            return copy.deepcopy(self._one(resource, namespace, name))

    def list(
        self, resource: Resource, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        with self.lock:
            self._settle()
            return [
                copy.deepcopy(each)
                for (kind, where, _), each in sorted(self._found.items(), key=lambda i: i[0][2])
                if kind == resource
                and namespace in (None, where)
                and has_labels(each, labels)
                and has_fields(each, fields)
            ]

    def patch(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        """A merge patch, which may bring a uid and a resourceVersion that must be right."""
        with self.lock:
            self._settle()
            there = self._one(resource, namespace, name)
            metadata = there["metadata"]
            asked = patch.get("metadata") or {}
            self._check_uid(resource, metadata, asked.get("uid"))
            if asked.get("resourceVersion") not in (None, metadata["resourceVersion"]):
                raise _conflict(resource, name, "the object has been modified; please apply your"
                                " changes to the latest version and try again")  # fmt: skip
            changed = merged(there, patch)
            self._keep(resource, changed)
            return copy.deepcopy(changed)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        propagation: str = "Background",
        uid: str | None = None,
    ) -> Object:
        with self.lock:
            self._settle()
            there = self._one(resource, namespace, name)
            self._check_uid(resource, there["metadata"], uid)
            if propagation == "Foreground" and FOREGROUND not in _finalizers(there):
                there["metadata"].setdefault("finalizers", []).append(FOREGROUND)
            self._mark(resource, there)
            self._settle()
            return copy.deepcopy(there)

    # -- what goes on inside

    def _one(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self._found.get((resource, namespace if resource.namespaced else "", name))
        if found is None:
            raise Refused(404, "NotFound", f'{resource.qualified} "{name}" not found')
        return found

    def _keep(self, resource: Resource, changed: Object) -> None:
        self._version += 1
        metadata = changed["metadata"]
        metadata["resourceVersion"] = str(self._version)
        where = metadata.get("namespace", "") if resource.namespaced else ""
        self._found[resource, where, metadata["name"]] = changed

    def _check_quota(self, resource: Resource, namespace: str, name: str) -> None:
        most = self.quota.get(resource.qualified)
        used = len(self.list(resource, namespace))
        if most is not None and used >= most:
            count = f"count/{resource.qualified}"
            raise Refused(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: exceeded'
                          f" quota: few, requested: {count}=1, used: {count}={used},"
                          f" limited: {count}={most}")  # fmt: skip

    def _check_uid(self, resource: Resource, metadata: Object, uid: str | None) -> None:
        if uid not in (None, metadata["uid"]):
            raise _conflict(resource, metadata["name"], "Precondition failed: UID in precondition:"
                            f" {uid}, UID in object meta: {metadata['uid']}")  # fmt: skip

    def _mark(self, resource: Resource, there: Object) -> None:
        """What is deleted stays while it has finalizers, or while it runs."""
        metadata = there["metadata"]
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = now()
            self._keep(resource, there)
            running = resource == PODS and there["status"].get("phase") == "Running"
            after = (float("inf") if self.ending_s is None else self.ending_s) if running else 0.0
            self._ends[metadata["uid"]] = time.monotonic() + after

    def _settle(self) -> None:
        """The garbage collector and the kubelets: again until nothing changes. Without anything on
        its way out there is nothing for them to do."""
        while self._ends:
            by_uid = {each["metadata"]["uid"]: each for each in self._found.values()}
            if not any(self._settle_one(*item, by_uid) for item in list(self._found.items())):
                self._ends = {uid: at for uid, at in self._ends.items() if uid in by_uid}
                break

    def _settle_one(
        self, key: tuple[Resource, str, str], each: Object, by_uid: dict[str, Object]
    ) -> bool:
        """Whether anything has changed."""
        metadata = each["metadata"]
        owners = metadata.get("ownerReferences") or []
        if "deletionTimestamp" not in metadata:
            gone = owners and not any(owner["uid"] in by_uid for owner in owners)
            awaited = any(FOREGROUND in _finalizers(by_uid.get(o["uid"], {})) for o in owners)
            if gone or awaited:
                self._mark(key[0], each)
                return True
            return False
        if FOREGROUND in _finalizers(each) and not self._has_dependents(metadata["uid"]):
            metadata["finalizers"].remove(FOREGROUND)
        if _finalizers(each) or time.monotonic() < self._ends[metadata["uid"]]:
            return False
        del self._found[key]
        return True

    def _has_dependents(self, uid: str) -> bool:
        return any(
            owner["uid"] == uid
            for each in self._found.values()
            for owner in each["metadata"].get("ownerReferences") or []
        )


def _finalizers(each: Object) -> list[str]:
    found: list[str] = each.get("metadata", {}).get("finalizers") or []
    return found


def _conflict(resource: Resource, name: str, why: str) -> Refused:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Refused(409, "Conflict", message)


def merged(there: Object, patch: Object) -> Object:
    """RFC 7386: null removes a key, objects are merged, all else is replaced."""
    found = copy.deepcopy(there)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            before = found.get(key)
            found[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            found[key] = value
    return found


def has_labels(each: Object, selector: str) -> bool:
    """`a=b,c!=d,e in (f,g),h`."""
    labels = each["metadata"].get("labels") or {}
    return all(_has_label(labels, term.strip()) for term in _terms(selector))


def _has_label(labels: Object, term: str) -> bool:
    if among := re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term):
        values = [value.strip() for value in among[3].split(",")]
        return (labels.get(among[1]) in values) == (among[2] == "in")
    key, sign, value = re.fullmatch(r"([^=!]+)(!=|==?|)(.*)", term).groups()  # type: ignore[union-attr]
    if not sign:
        return key in labels
    return (labels.get(key) == value) == (sign != "!=")


def _terms(selector: str) -> Iterator[str]:
    return (term for term in re.split(r",(?![^(]*\))", selector) if term)


def has_fields(each: Object, selector: str) -> bool:
    """`a.b=c,d!=e`."""
    for term in _terms(selector):
        path, sign, value = re.fullmatch(r"([^=!]+)(!=|==?)(.*)", term).groups()  # type: ignore[union-attr]
        found: Any = each
        for part in path.split("."):
            found = (found or {}).get(part)
        if (str(found or "") == value) == (sign == "!="):
            return False
    return True
