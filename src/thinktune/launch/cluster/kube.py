"""The Kubernetes objects that the launcher reads, makes and removes.

Objects come and go as plain JSON, as `kubectl -o json` shows them. Called by all of `launch` that
talks to a cluster.
"""

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from thinktune.launch.cluster.api import (
    CONNECT_S,
    PATIENCE,
    Api,
    Conflict,
    Forbidden,
    Missing,
    Object,
)

RUN_LABEL, STAGE_LABEL = "thinktune.dev/run", "thinktune.dev/stage"
SERVER_LABEL = "thinktune.dev/server"
INSTANCE_LABEL = "app.kubernetes.io/instance"
"""The label whose value is the name of the Helm release."""
WAITS, QUEUE = "thinktune.dev/waits", "thinktune.dev/queue"
"""Annotations of a Job that nobody has started yet, and of the queue that it then goes to."""
REPLACED = "thinktune.dev/replaced"
"""Annotation of a Job that a submit is about to remove, to make it anew."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
OURS = "app.kubernetes.io/name in (thinktune,thinktune-conductor)"
SERVERS = "app.kubernetes.io/name=thinktune-serve"
WORKLOADS = {
    "deployments": ("/apis/apps/v1", "Deployment"),
    "statefulsets": ("/apis/apps/v1", "StatefulSet"),
    "leaderworkersets": ("/apis/leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
}
"""What runs the pods of servers: resource → group and version, kind."""
SILENCE_S = 300
"""How long a log that is followed may be silent before it is asked for again."""
OWNED = {
    "serviceaccounts": "/api/v1",
    "configmaps": "/api/v1",
    "services": "/api/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "podmonitors": "/apis/monitoring.coreos.com/v1",
    "prometheusrules": "/apis/monitoring.coreos.com/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "scaledobjects": "/apis/keda.sh/v1alpha1",
    "ingresses": "/apis/networking.k8s.io/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
"""What our charts make beside what runs pods."""


def newest_last(events: Iterable[Object]) -> list[Object]:
    """The events in the order in which they were last seen, or seen once."""
    return sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))


class Kube(Api):
    """One namespace of one cluster. All methods raise ServiceUnavailable where the API does not
    answer, and Forbidden where it refuses."""

    # -- what is there

    def jobs(self, labels: str = OURS) -> list[Object]:
        """Jobs of the namespace by label selector."""
        return self._list(f"/apis/batch/v1/namespaces/{self.namespace}/jobs", labels)

    def job(self, name: str) -> Object | None:
        """One Job, if it is there."""
        return self._get(f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}")

    def pods(self, labels: str) -> list[Object]:
        """Pods by label selector, the newest first."""
        found = self._list(f"/api/v1/namespaces/{self.namespace}/pods", labels)
        return sorted(
            found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True
        )

    def events(self, about: Object) -> list[Object]:
        """Events about this very object, or one of that kind and name; the newest last."""
        metadata = about["metadata"]
        fields = f"involvedObject.kind={about.get('kind')},involvedObject.name={metadata['name']}"
        if "uid" in metadata:
            fields = f"involvedObject.uid={metadata['uid']}"
        path = f"/api/v1/namespaces/{self.namespace}/events"
        return newest_last(self._list(path, fields=fields))

    def nodes(self) -> list[Object]:
        """Nodes of the cluster."""
        return self._list("/api/v1/nodes")

    def all_pods(self) -> list[Object]:
        """Pods of all namespaces that have not ended."""
        fields = "status.phase!=Succeeded,status.phase!=Failed"
        return self._list("/api/v1/pods", fields=fields)

    def namespace_object(self) -> Object | None:
        """The namespace itself."""
        return self._get(f"/api/v1/namespaces/{self.namespace}")

    def secret_keys(self, name: str) -> list[str] | None:
        """Names of a secret's keys, never its values; None where it is not there."""
        found = self._get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        return None if found is None else sorted(found.get("data") or {})

    def config_map(self, name: str) -> dict[str, str] | None:
        """The data of a ConfigMap; None where it is not there."""
        found = self._get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        return None if found is None else dict(found.get("data") or {})

    def may(self, verb: str, group: str, resource: str, subresource: str = "") -> bool:
        """Whether we have that right in the namespace."""
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource}
        if subresource:
            asked["subresource"] = subresource
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._call("POST", path, body=body)["status"]["allowed"])

    def workloads(self, labels: str = SERVERS) -> list[Object]:
        """What runs the pods of servers, by label selector."""
        found: list[Object] = []
        for plural, (group, kind) in WORKLOADS.items():
            with contextlib.suppress(Missing, Forbidden):  # no such controller there
                items = self._list(f"{group}/namespaces/{self.namespace}/{plural}", labels)
                found += [{**each, "kind": kind} for each in items]  # a list leaves it out
        return found

    def has_leader_worker_sets(self) -> bool:
        """Whether the cluster knows LeaderWorkerSets."""
        group, _ = WORKLOADS["leaderworkersets"]
        return self._get(group) is not None

    def config_map_object(self, name: str) -> Object | None:
        """A ConfigMap with its metadata; None where it is not there."""
        return self._get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")

    # -- what is said

    def log_from(self, pod: str, since: str | None) -> Iterator[tuple[str, str]]:
        """Follows a pod's log: time and text of each line later than `since`, until the pod ends,
        the connection does, or nothing is said for some minutes."""
        options: dict[str, Any] = {"follow": "true", "timestamps": "true"}
        if since is not None:
            # Whole seconds: the rest is left out here. A node's clock may be of any zone.
            moment = datetime.fromisoformat(since[:19] + (since[-6:] if since[-1] != "Z" else "Z"))
            options["sinceTime"] = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for line in self._log(pod, options, timeout=(CONNECT_S, SILENCE_S)):
            at, _, text = line.partition(" ")
            if since is None or at > since:
                yield at, text

    def log(self, pod: str, *, tail: int | None = None) -> Iterator[str]:
        """Lines of a pod's log so far."""
        options = {} if tail is None else {"tailLines": tail}
        yield from self._log(pod, options, timeout=PATIENCE)

    def _log(self, pod: str, options: dict[str, Any], *, timeout: Any) -> Iterator[str]:
        query = {"container": "task", **options}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        answer = self._request("GET", path, query=query, timeout=timeout)
        with self._faults():
            rest = b""
            for piece in answer.response.stream(1 << 14, decode_content=False):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")

    # -- what is done

    def create_pod(self, body: Object) -> None:
        """Creates a pod in the namespace."""
        self._call("POST", f"/api/v1/namespaces/{self.namespace}/pods", body=body)

    def create_network_policy(self, body: Object) -> None:
        """Creates a NetworkPolicy in the namespace."""
        self._call("POST", self._collection("networkpolicies"), body=body)

    def delete_owned(self, labels: str) -> list[str]:
        """Deletes all that our charts make beside a Job, by label selector; gives what it was."""
        removed = []
        for kind in OWNED:
            found: list[Object] = []
            with contextlib.suppress(Missing, Forbidden):  # no operator there, or none for us
                found = self._list(self._collection(kind), labels)
            for each in found:
                name = each["metadata"]["name"]
                if self._delete(f"{self._collection(kind)}/{name}", "Background"):
                    removed.append(f"{kind}/{name}")
        return removed

    def _collection(self, kind: str) -> str:
        """The path of all objects of that kind in the namespace."""
        return f"{OWNED[kind]}/namespaces/{self.namespace}/{kind}"

    def pod(self, name: str) -> Object | None:
        """One pod, if it is there."""
        return self._get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def delete_pod(self, name: str) -> None:
        """Deletes a pod, if it is there."""
        self._delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", "Background")

    def delete_job(self, name: str, uid: str | None = None) -> bool:
        """A Job, and with it its pods, which get their grace period. False: it was not there.

        Raises Conflict where it has another uid.
        """
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"
        return self._delete(path, "Foreground", uid)

    def mark_job(self, job: Object, annotation: str) -> bool:
        """Puts an annotation on a Job; False where it is no longer as it was given here. Of several
        who try at once, one succeeds."""
        metadata = {key: job["metadata"][key] for key in ("uid", "resourceVersion")}
        try:
            patch = {"metadata": metadata | {"annotations": {annotation: "true"}}}
            self.patch_job(job["metadata"]["name"], patch)
        except (Conflict, Missing):
            return False
        return True

    def patch_job(self, name: str, patch: Object) -> None:
        """Changes a Job by a merge patch."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"
        headers = {"Content-Type": "application/merge-patch+json"}
        self._call("PATCH", path, body=patch, headers=headers)

    def change_config_map(self, there: Object, data: dict[str, str]) -> None:
        """Changes these entries of a ConfigMap. Raises Conflict where it is no longer as given."""
        metadata = {key: there["metadata"][key] for key in ("uid", "resourceVersion")}
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{there['metadata']['name']}"
        headers = {"Content-Type": "application/merge-patch+json"}
        self._call("PATCH", path, body={"metadata": metadata, "data": data}, headers=headers)

    def annotate_pod(self, name: str, annotation: str, value: str) -> None:
        """Puts an annotation on a pod, whose kubelet then looks at its volumes at once."""
        headers = {"Content-Type": "application/merge-patch+json"}
        body = {"metadata": {"annotations": {annotation: value}}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        with contextlib.suppress(Missing):
            self._call("PATCH", path, body=body, headers=headers)

    def create_secret(self, name: str, labels: dict[str, str], text: dict[str, str]) -> bool:
        """Creates a Secret with these entries. False: there is one of that name."""
        body = {"metadata": {"name": name, "labels": labels}, "type": "Opaque", "stringData": text}
        try:
            self._call("POST", f"/api/v1/namespaces/{self.namespace}/secrets", body=body)
        except Conflict:
            return False
        return True

    def delete_secret(self, name: str, labels: str) -> bool:
        """Deletes a Secret, if it is there and has these labels."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        if not any(each["metadata"]["name"] == name for each in self._list(path, labels)):
            return False
        return self._delete(f"{path}/{name}", "Background")

    def delete_workload(self, workload: Object) -> bool:
        """What runs the pods of a server, and with it its pods, which get their grace period."""
        plural = f"{workload['kind'].lower()}s"
        path = f"{WORKLOADS[plural][0]}/namespaces/{self.namespace}/{plural}"
        name, uid = workload["metadata"]["name"], workload["metadata"]["uid"]
        return self._delete(f"{path}/{name}", "Foreground", uid)
