"""Values of the chart `charts/serve`: one server, on one node or over several.

The chart's `values.schema.json` is generated from these models.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.values import (
    AccessValues,
    ImageValues,
    PlacementValues,
    ResourceValues,
    StorageValues,
    Values,
)

Workload = Literal["deployment", "leaderworkerset", "statefulset"]
"""What runs the pods: a Deployment where one node serves the model, a LeaderWorkerSet over several,
a StatefulSet where the cluster has no LeaderWorkerSet."""


class RolloutValues(Values):
    """How new pods replace old ones."""

    max_surge: Annotated[int, Field(ge=0)]
    """Number of pods, or of groups of pods, that may be there beyond `replicas`."""
    max_unavailable: Annotated[int, Field(ge=0)]
    """Number of them that may be missing meanwhile."""


class ServeTimeValues(Values):
    """Time limits, in seconds and numbers of checks."""

    startup_checks: Annotated[int, Field(ge=1)]
    """Number of checks, 5 seconds apart, within which a pod must be ready before it is restarted:
    fetching the weights, loading them, and capturing CUDA graphs."""
    progress: Annotated[int, Field(ge=1)]
    """Seconds after which a rollout without a new ready pod counts as failed."""
    pre_stop: Annotated[int, Field(ge=1)]
    """Seconds between a pod's removal from the Service and SIGTERM."""
    grace: Annotated[int, Field(ge=1)]
    """Seconds until SIGKILL: `preStop`, the time that running answers get, and a margin."""


class GatewayValues(Values):
    """The pod's only port, and who may use it."""

    port: Annotated[int, Field(ge=1024, le=65535)]
    """Port that the gateway listens on."""
    key_secret: str
    """Secret in the namespace with the key that clients send. It is mounted as a file."""
    key_entry: str
    """Entry of that Secret with the key."""
    client_namespaces: tuple[str, ...]
    """Namespaces whose pods may connect. Empty allows every address, and leaves it to the key."""


class ExposeValues(Values):
    """How clients outside of the cluster reach the server."""

    host: str
    """Name of the host that they use."""
    gateway: str | None
    """Gateway (Gateway API) that an HTTPRoute attaches to. Null makes an Ingress."""
    gateway_namespace: str | None
    """Namespace of the Gateway. Null takes the server's own."""
    listener: str | None
    """Listener of the Gateway. Null attaches to all that admit the host."""
    ingress_class: str | None
    """Class of the Ingress. Null takes the cluster's default."""
    tls_secret: str | None
    """Secret with the certificate of the Ingress. Null serves no TLS there."""
    annotations: dict[str, str]
    """Annotations of the Ingress."""


class AutoscalingValues(Values):
    """How many replicas there are, by load."""

    by: Literal["hpa", "keda"]
    """`hpa`: a HorizontalPodAutoscaler on the gateway's metric of running requests, which an
    adapter of custom metrics must provide. `keda`: a ScaledObject on waiting requests and KV cache
    use."""
    min_replicas: Annotated[int, Field(ge=1)]
    """Fewest replicas."""
    max_replicas: Annotated[int, Field(ge=1)]
    """Most replicas."""
    requests: Annotated[int, Field(ge=1)]
    """Running requests per replica that `hpa` aims at."""
    waiting: Annotated[int, Field(ge=1)]
    """Waiting requests per replica that `keda` aims at."""
    kv_use_percent: Annotated[int, Field(ge=1, le=100)]
    """Share of the KV cache in use that `keda` aims at."""
    prometheus: str
    """Address of Prometheus, for `keda`."""


class ServeMonitoringValues(Values):
    """Monitoring by the Prometheus Operator and Grafana."""

    enabled: bool
    """Whether there is a PodMonitor, with alerts and a Grafana dashboard."""
    labels: dict[str, str]
    """Further labels of the PodMonitor and the PrometheusRule."""
    stalled_after_seconds: Annotated[int, Field(ge=1)]
    """The alert fires when requests wait and no token has come for this many seconds."""
    waiting: Annotated[int, Field(ge=1)]
    """The alert fires when more requests than this wait for five minutes."""


class ServeValues(Values):
    """All values of the chart `charts/serve`."""

    server: str
    """Name of the server, which is also the name of the model behind which `thinktune promote`
    puts runs."""
    task: str
    """Text of the task file, in JSON."""
    served: str
    """The runs that are served at first, in JSON. `thinktune promote` changes them in the
    cluster."""
    workload: Workload
    """What runs the pods."""
    hardware: str
    """Hardware entry of the catalog that the server is planned for, which becomes a label."""
    replicas: Annotated[int, Field(ge=1)]
    """Number of servers, where nothing scales them."""
    nodes: Annotated[int, Field(ge=1)]
    """Number of nodes over which one server divides its model."""
    image: ImageValues
    rollout: RolloutValues
    resources: ResourceValues
    seconds: ServeTimeValues
    placement: PlacementValues
    storage: StorageValues
    access: AccessValues
    gateway: GatewayValues
    expose: ExposeValues | None
    autoscaling: AutoscalingValues | None
    monitoring: ServeMonitoringValues
    env: dict[str, str]
    """Environment variables of the container."""
