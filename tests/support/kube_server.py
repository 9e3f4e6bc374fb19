"""A Kubernetes API server in memory, spoken to over real HTTP by the launcher's client and by helm.

`kube_objects` has the objects, `kube_cluster` what a scheduler, kubelets and controllers do to
them; here are the paths, the answers as Kubernetes words them, logs, access reviews, and faults on
demand. No watches: the launcher polls.
"""

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kube_discovery import discovery
from kube_objects import PODS, RESOURCES, Object, Objects, Refused, Resource
from kube_wire import decoded

TOKEN = "token-of-tests"
POLL_S = 0.01
ANSWERED = 200
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)
BY_PATH = {(each.group, each.plural): each for each in RESOURCES}


@dataclass
class Fault:
    """What befalls requests whose `METHOD /path` matches."""

    matches: str
    status: int | None
    """None: the connection is closed without an answer; 200: it is answered as ever."""
    message: str = "a fault of tests"
    times: int | None = None
    """None: until it is lifted."""
    body: str | None = None
    """Instead of Kubernetes's Status: a proxy's page."""
    act: Callable[[], None] | None = None
    """Done first: to kill who asks, at that very moment."""


class KubeServer:
    """The server at work; what tests look at and change it by."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.logs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        """What each pod has printed: time and text of each line."""
        self.log_breaks: dict[str, list[int]] = defaultdict(list)
        """Lines after which a connection that follows a pod's log breaks, each number once."""
        self.faults: list[Fault] = []
        self.denied: set[tuple[str, str]] = set()
        """Verb and resource of rights that we lack: `("create", "jobs")`."""
        self.requests: list[str] = []
        """`METHOD /path` of all that was asked."""
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def kubeconfig(self, folder: Path, namespace: str, context: str = "tests") -> Path:
        """A file whose only context leads here."""
        named = {
            "clusters": [{"name": context, "cluster": {"server": self.url}}],
            "users": [{"name": context, "user": {"token": TOKEN}}],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": context, "user": context, "namespace": namespace},
                }
            ],
        }
        path = folder / "kubeconfig"
        top = {"apiVersion": "v1", "kind": "Config", "current-context": context}
        path.write_text(yaml.safe_dump(top | named))
        return path

    def fail(
        self,
        matches: str,
        status: int | None,
        message: str = "a fault of tests",
        times: int = 1,
        act: Callable[[], None] | None = None,
    ) -> None:
        """The next requests that match, so many."""
        self.faults.append(Fault(matches, status, message, times, act=act))

    @contextmanager
    def away(
        self, status: int | None = None, matches: str = ".*", body: str | None = None
    ) -> Iterator[None]:
        """Meanwhile every request that matches fails; without a status, by a closed connection."""
        fault = Fault(matches, status, "Unauthorized" if status == 401 else "away", body=body)
        self.faults.append(fault)
        try:
            yield
        finally:
            self.faults.remove(fault)

    def when(self, matches: str, act: Callable[[], None], *, after: int = 0) -> None:
        """Something happens just before a request that matches is answered, as it would be; not
        for so many before it."""
        for number in range(after + 1):
            do = act if number == after else None
            self.faults.append(Fault(matches, ANSWERED, times=1, act=do))

    def fault_for(self, request: str) -> Fault | None:
        with self.objects.lock:
            for fault in self.faults:
                if re.fullmatch(fault.matches, request) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


@contextmanager
def kube_server() -> Iterator[KubeServer]:
    """A server for as long as it is wanted."""
    server = KubeServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def _handler(server: KubeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        kube = server

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    kube: KubeServer

    def log_message(self, *args: Any) -> None:
        """Says nothing: `requests` has it."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        url = urlsplit(self.path)
        asked = f"{self.command} {url.path}"
        self.kube.requests.append(asked)
        fault = self.kube.fault_for(asked)
        if fault is not None and fault.act is not None:
            fault.act()
        if fault is not None and fault.status is None:
            self.close_connection = True
            return
        try:
            if fault is not None and fault.status not in (None, ANSWERED):
                assert fault.status is not None
                if fault.body is not None:
                    self._send(fault.status, "text/html", fault.body.encode())
                    return
                raise Refused(fault.status, REASONS.get(fault.status, ""), fault.message)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            self._route(url.path, query, decoded(text))
        except Refused as refused:
            self._answer(refused.code, _status(refused))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _route(self, path: str, query: dict[str, str], body: Object) -> None:
        found = discovery(path)
        if found is not None:
            return self._answer(200, found)
        if path.endswith("/selfsubjectaccessreviews"):
            return self._answer(201, self._review(body))
        parts = PATH.fullmatch(path)
        resource = BY_PATH.get((parts["group"] or "", parts["plural"])) if parts else None
        if parts is None or resource is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if parts["plural"] == "namespaces" or not resource.namespaced:
            where, name = "", parts["name"]
        else:
            where, name = parts["namespace"], parts["name"]
        self._check_right(resource, where, name, parts["sub"])
        if parts["sub"] == "log":
            return self._log(where, name, query)
        self._do(resource, where, name, query, body)
        return None

    def _do(
        self, resource: Resource, where: str, name: str | None, query: Any, body: Object
    ) -> None:
        objects = self.kube.objects
        match self.command, name:
            case "GET", None:
                items = objects.list(
                    resource, where, query.get("labelSelector", ""), query.get("fieldSelector", "")
                )
                for each in items:  # as the API server lists them
                    del each["kind"], each["apiVersion"]
                kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
                self._answer(200, kind | {"metadata": {"resourceVersion": "1"}, "items": items})
            case "GET", str():
                self._answer(200, objects.get(resource, where, name))
            case "POST", None:
                self._answer(201, objects.create(resource, where, body))
            case "PATCH", str() if "apply-patch" in self.headers["Content-Type"]:
                self._apply(resource, where, name, body)
            case (("PATCH" | "PUT"), str()):
                self._answer(200, objects.patch(resource, where, name, body))
            case "DELETE", str():
                uid = (body.get("preconditions") or {}).get("uid")
                how = body.get("propagationPolicy", "Background")
                self._answer(200, objects.delete(resource, where, name, how, uid))
            case _:
                raise Refused(405, "MethodNotAllowed", f"{self.command} is not supported here")

    def _apply(self, resource: Resource, where: str, name: str, body: Object) -> None:
        """Server-side apply, as far as one manager needs it."""
        objects = self.kube.objects
        with objects.lock:
            if any(each["metadata"]["name"] == name for each in objects.list(resource, where)):
                self._answer(200, objects.patch(resource, where, name, body))
            else:
                self._answer(201, objects.create(resource, where, body))

    def _check_right(
        self, resource: Resource, where: str | None, name: str | None, sub: str | None
    ) -> None:
        verbs = {"GET": "get" if name else "list", "POST": "create", "PUT": "update"}
        verb = verbs.get(self.command, self.command.lower())
        asked = f"{resource.plural}/{sub}" if sub else resource.plural
        if (verb, asked) in self.kube.denied:
            object_name = f' "{name}"' if name else ""
            scope = f'in the namespace "{where}"' if where else "at the cluster scope"
            message = (
                f'{resource.qualified}{object_name} is forbidden: User "tester" cannot {verb}'
                f' resource "{asked}" in API group "{resource.group}" {scope}'
            )
            raise Refused(403, "Forbidden", message)

    def _review(self, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        resource = asked["resource"]
        if asked.get("subresource"):
            resource += f"/{asked['subresource']}"
        return body | {"status": {"allowed": (asked["verb"], resource) not in self.kube.denied}}

    def _log(self, where: str, name: str, query: dict[str, str]) -> None:
        """A pod's log; one that is followed goes on until the pod has ended."""
        pod = self.kube.objects.get(PODS, where, name)
        if pod["status"].get("phase") == "Pending":
            message = f'container "task" in pod "{name}" is waiting to start: ContainerCreating'
            raise Refused(400, "BadRequest", message)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        lines = self.kube.logs[name]
        at = max(0, len(lines) - int(query["tailLines"])) if "tailLines" in query else 0
        follow, sent = query.get("follow") == "true", 0
        breaks = self.kube.log_breaks[name]
        breaks_after = breaks.pop(0) if follow and breaks else None
        while True:
            ended = not follow or not self._runs(where, name)
            for moment, text in lines[at:]:
                at += 1
                if moment[:19] >= query.get("sinceTime", "")[:19]:
                    stamp = f"{moment} " if query.get("timestamps") == "true" else ""
                    self._chunk(f"{stamp}{text}\n")
                    sent += 1
                if sent == breaks_after:
                    self.close_connection = True
                    return
            if ended:
                break
            time.sleep(POLL_S)
        self._chunk("")

    def _runs(self, where: str, name: str) -> bool:
        try:
            pod = self.kube.objects.get(PODS, where, name)
        except Refused:
            return False
        return bool(pod["status"].get("phase") == "Running")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _answer(self, code: int, body: Object) -> None:
        self._send(code, "application/json", json.dumps(body).encode())

    def _send(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


REASONS = {401: "Unauthorized", 403: "Forbidden", 429: "TooManyRequests", 500: "InternalError"}


def _status(refused: Refused) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refused.message,
        "reason": refused.reason,
        "code": refused.code,
    }
