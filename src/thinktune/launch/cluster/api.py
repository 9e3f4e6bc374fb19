"""Requests to an API server: the only module that imports Kubernetes's client. Used by `kube`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml

from thinktune.launch.cluster.kube_messages import refusal_remedy
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid

Object = dict[str, Any]
CONNECT_S, ANSWER_S = 5, 30
PATIENCE = (CONNECT_S, ANSWER_S)
"""What a connection and a request may take."""


class Forbidden(ServiceUnavailable):
    """The API server knows us and refuses."""


class Unauthenticated(Forbidden):
    """The API server does not know us: credentials that expired, or never were."""


class Missing(ServiceUnavailable):
    """There is no such object."""


class Conflict(ServiceUnavailable):
    """An object is not, or no longer, as the request takes it to be: somebody was first."""


class Api:
    """Requests to one cluster, for one namespace."""

    def __init__(self, namespace: str, context: str | None = None) -> None:
        """Raises SpecInvalid where there is no context to talk to."""
        from kubernetes import client  # takes most of a second to import
        from urllib3 import Retry

        self.namespace = namespace
        self.context, self.from_kubeconfig = _configure(context)
        settings = client.Configuration.get_default_copy()
        # One connection that fails may be a stale one; an address that is dead is told in seconds.
        settings.retries = Retry(total=1, connect=1, read=1, redirect=0)
        self._api = client.ApiClient(settings)

    def _get(self, path: str) -> Object | None:
        try:
            return self._call("GET", path)
        except Missing:
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
        except Missing:
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
        timeout: Any = PATIENCE,
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
            raise ServiceUnavailable(host, fault, remedy) from None

    def _refused(self, status: int, body: bytes) -> NoReturn:
        message = _message(body)
        place = f"namespace {self.namespace}"
        if status == 404:
            raise Missing(place, message, "check the name and the namespace")
        if status == 401:
            remedy = "log in to the cluster again: the credentials of the context are refused"
            raise Unauthenticated(place, message, remedy)
        if status == 403:
            raise Forbidden(place, message, refusal_remedy(message))
        if status == 409:
            raise Conflict(place, message, "it was changed meanwhile: try again")
        if status == 422:
            raise SpecInvalid(place, message, "change what it names")
        raise ServiceUnavailable(place, f"the API server answered {status}: {message}", "try again")


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
