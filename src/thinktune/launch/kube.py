"""The Kubernetes API in our words: the only place that knows its client.

Objects come and go as plain JSON, as `kubectl -o json` shows them. Called by all of `launch` that
talks to a cluster.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml

from thinktune.spec.errors import SpecInvalid, StoreUnavailable

Object = dict[str, Any]
RUN_LABEL, STAGE_LABEL = "thinktune.dev/run", "thinktune.dev/stage"
WAITS, QUEUE = "thinktune.dev/waits", "thinktune.dev/queue"
"""Annotations of a Job that nobody has started yet, and of the queue that it then goes to."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
OURS = "app.kubernetes.io/name in (thinktune,thinktune-conductor)"
ANSWER_S, SILENCE_S = 30, 300
"""What a request may take; how long a log that is followed may be silent before it is asked for
again."""


class Forbidden(StoreUnavailable):
    """The API server knows us and refuses."""


class Kube:
    """One namespace of one cluster. All methods raise StoreUnavailable where the API does not
    answer, and Forbidden where it refuses."""

    def __init__(self, namespace: str, context: str | None = None) -> None:
        """Raises SpecInvalid where there is no context to talk to."""
        from kubernetes import client  # takes most of a second to import

        self.namespace = namespace
        self.context, self.from_kubeconfig = _configure(context)
        self._api = client.ApiClient()

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
        """Events about this very object, the newest last."""
        fields = f"involvedObject.uid={about['metadata']['uid']}"
        path = f"/api/v1/namespaces/{self.namespace}/events"
        found = self._list(path, fields=fields)
        return sorted(found, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))

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
        """Data of a ConfigMap."""
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

    # -- what is said

    def log_from(self, pod: str, since: str | None) -> Iterator[tuple[str, str]]:
        """Follows a pod's log: time and text of each line later than `since`, until the pod ends,
        the connection does, or nothing is said for some minutes."""
        options: dict[str, Any] = {"follow": "true", "timestamps": "true"}
        if since is not None:
            options["sinceTime"] = since[:19] + "Z"  # whole seconds: the rest is left out here
        for line in self._log(pod, options, timeout=(ANSWER_S, SILENCE_S)):
            at, _, text = line.partition(" ")
            if since is None or at > since:
                yield at, text

    def log(self, pod: str, *, tail: int | None = None) -> Iterator[str]:
        """Lines of a pod's log so far."""
        yield from self._log(pod, {} if tail is None else {"tailLines": tail}, timeout=ANSWER_S)

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
        """A pod."""
        self._call("POST", f"/api/v1/namespaces/{self.namespace}/pods", body=body)

    def pod(self, name: str) -> Object | None:
        """One pod, if it is there."""
        return self._get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def delete_pod(self, name: str) -> None:
        """A pod, if it is there."""
        self._delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", "Background")

    def delete_job(self, name: str, uid: str | None = None) -> bool:
        """A Job, and with it its pods, which get their grace period. False: it was not there.

        Raises SpecInvalid where it has another uid.
        """
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"
        return self._delete(path, "Foreground", uid)

    def patch_job(self, name: str, patch: Object) -> None:
        """Changes a Job by a merge patch."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"
        headers = {"Content-Type": "application/merge-patch+json"}
        self._call("PATCH", path, body=patch, headers=headers)

    # -- how

    def _get(self, path: str) -> Object | None:
        try:
            return self._call("GET", path)
        except _Missing:
            return None

    def _list(self, path: str, labels: str = "", fields: str = "") -> list[Object]:
        query = {"labelSelector": labels, "fieldSelector": fields}
        return list(self._call("GET", path, query={k: v for k, v in query.items() if v})["items"])

    def _delete(self, path: str, propagation: str, uid: str | None = None) -> bool:
        body: Object = {"propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._call("DELETE", path, body=body)
        except _Missing:
            return False
        return True

    def _call(self, method: str, path: str, **options: Any) -> Object:
        answer = self._request(method, path, **options)
        with self._faults():
            found: Object = json.loads(answer.read())
        return found

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = ANSWER_S,
    ) -> Any:
        with self._faults():
            answer = self._api.call_api(
                *self._api.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params={
                        "Accept": "application/json",
                        "Content-Type": "application/json",
                        **(headers or {}),
                    },
                    body=body,
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=timeout,
            )
            if answer.status >= 400:
                self._refused(answer.status, answer.read())
        return answer

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from urllib3.exceptions import HTTPError

        try:
            yield
        except HTTPError as error:
            host = self._api.configuration.host
            fault = f"the API server does not answer ({_first_cause(error)})"
            remedy = "check the context (kubectl cluster-info), VPN and proxy"
            raise StoreUnavailable(host, fault, remedy) from None

    def _refused(self, status: int, body: bytes) -> NoReturn:
        message = _message(body)
        place = f"namespace {self.namespace}"
        if status == 404:
            raise _Missing(place, message, "check the name and the namespace")
        if status in (401, 403):
            remedy = "ask for a role in this namespace; `thinktune doctor` lists what is needed"
            if status == 401:
                remedy = "log in to the cluster again: the credentials of the context are refused"
            raise Forbidden(place, message, remedy)
        if status == 422 or status == 409:
            raise SpecInvalid(place, message, "see its words")
        raise StoreUnavailable(place, f"the API server answered {status}: {message}", "try again")


class _Missing(StoreUnavailable):
    """404."""


def _configure(context: str | None) -> tuple[str, bool]:
    """Takes the context of the kubeconfig, or the pod's own account; gives its name, and whether it
    is one of the kubeconfig."""
    from kubernetes import config

    try:
        config.load_kube_config(context=context)
        if context is not None:
            return context, True
        _, active = config.list_kube_config_contexts()
        return str(active["name"]), True
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        if context is None:
            try:
                config.load_incluster_config()
            except config.ConfigException:
                pass
            else:
                return "in-cluster", False
        remedy = "set KUBECONFIG, or choose one with kubectl config use-context"
        fault = f"no cluster to talk to ({error})"
        raise SpecInvalid("Kubernetes context", fault, remedy) from None


def _message(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        return text.strip()[:500]


def _first_cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return _first_cause(reason) if isinstance(reason, BaseException) else str(error)[:200]
