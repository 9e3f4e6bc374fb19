"""What the cluster file says of servers: who reaches them, by which key, and how many there are."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.kube_names import LabelKey, Namespace, ObjectName

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Host = Annotated[str, Field(pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$", max_length=253)]


class Expose(Closed):
    """How clients outside of the cluster reach a server."""

    host: Host
    """Name of the host that they use, such as `chat.example.com`."""
    gateway: ObjectName | None = None
    """Gateway (Gateway API) that an HTTPRoute attaches to. Its listener has the certificate. Null
    makes an Ingress."""
    gateway_namespace: Namespace | None = None
    """Namespace of the Gateway. Null takes the server's own."""
    listener: ObjectName | None = None
    """Listener of the Gateway. Null attaches to all that admit the host."""
    ingress_class: ObjectName | None = None
    """Class of the Ingress. Null takes the cluster's default."""
    tls_secret: ObjectName | None = None
    """Secret with the certificate of the Ingress. Null serves no TLS there."""
    annotations: dict[LabelKey, str] = {}
    """Annotations of the Ingress, such as those for time limits of its controller."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        of_ingress = self.ingress_class or self.tls_secret or self.annotations
        if self.gateway is not None and of_ingress:
            raise ValueError("a Gateway has its own class and TLS; remove what is of an Ingress")
        return self

    @property
    def scheme(self) -> Literal["http", "https"]:
        """By which clients come. What a Gateway's listener has is its own matter, and TLS is what
        they usually have."""
        return "https" if self.gateway or self.tls_secret else "http"


class Autoscaling(Closed):
    """How many replicas a server has, by load."""

    by: Literal["hpa", "keda"]
    """`hpa`: a HorizontalPodAutoscaler on running requests, the metric
    `thinktune_gateway_requests_running` of an adapter of custom metrics. `keda`: a ScaledObject on
    vLLM's waiting requests and KV cache use."""
    max_replicas: Count
    """Most replicas. The fewest are those of `thinktune serve --replicas`."""
    requests: Count = 64
    """Running requests per replica that `hpa` aims at."""
    waiting: Count = 8
    """Waiting requests per replica that `keda` aims at."""
    kv_use_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Share of the KV cache in use that `keda` aims at."""
    prometheus: str | None = None
    """Address of Prometheus, which `keda` asks."""

    @model_validator(mode="after")
    def _can_ask(self) -> Self:
        if self.by == "keda" and not self.prometheus:
            raise ValueError("'keda' asks Prometheus; add its address as 'prometheus'")
        return self


class Serving(Closed):
    """Servers, which `thinktune serve` installs."""

    key_secret: ObjectName | None = None
    """Secret in the namespace with the key that clients send, in its entry `key`. Null makes one
    for each server, with a key drawn at random."""
    client_namespaces: tuple[Namespace, ...] = ()
    """Namespaces whose pods may connect, the one of an ingress controller included. Empty allows
    every address, and leaves it to the key."""
    surge: bool | None = None
    """Whether an update starts a new pod before it ends an old one, for which a node must be free.
    Null does so without GPUs, and for a server with a single replica, which would pause
    otherwise."""
    expose: Expose | None = None
    """How clients outside of the cluster reach it. Null leaves it inside."""
    autoscaling: Autoscaling | None = None
    """How many replicas there are, by load. Null keeps the number that is asked for."""
    stalled_after_seconds: Count | None = None
    """The alert fires when requests wait and no token has come for this many seconds. Null takes
    half of those after which the engine is killed (`times.hung_s`): 60, and 450 on CPUs."""
    waiting: Count = 16
    """The alert fires when more requests than this wait for five minutes."""
