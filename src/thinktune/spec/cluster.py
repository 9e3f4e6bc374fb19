"""A cluster as its user describes it: where images and artifacts are, who may read them.

One YAML file beside the recipes, or wherever `--cluster` says. Nothing in it depends on a recipe.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.spec.catalog import Count, Name
from thinktune.spec.closed import Closed
from thinktune.spec.task import Stage


class Images(Closed):
    """Where the images are: `<registry>/<repository>:<tag>`."""

    registry: str = "ghcr.io/thinktune"
    tag: str | None = None
    """Null: the version of the launcher."""
    digests: dict[Stage, str] = {}
    """`sha256:…` by stage; takes the tag's place."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[Name, ...] = ()
    """Secrets of the namespace that open the registry."""


class Toleration(Closed):
    """As Kubernetes has it."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Identity(Closed):
    """Who a stage is to the store."""

    annotations: dict[str, str] = {}
    """Of each stage's service account: `eks.amazonaws.com/role-arn` and the like."""
    secret: Name | None = None
    """Secret of the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; null where the
    service account is enough."""
    model_hub_secret: Name | None = None
    """Secret with HF_TOKEN, for gated models; prep alone gets it."""


Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[tuple[Port, ...], Field(min_length=1)]
Addresses = Annotated[tuple[str, ...], Field(min_length=1)]
"""CIDRs. An empty list would mean everybody to Kubernetes."""


class Egress(Closed):
    """A way out."""

    cidr: str
    port: Port
    protocol: Literal["TCP", "UDP"] = "TCP"


class Network(Closed):
    """What pods may reach. Anything else is denied, in and out."""

    policy: bool = True
    """Off where the cluster enforces none or has its own."""
    store_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the store."""
    store_ports: Ports = (443,)
    store_namespace: Name | None = None
    """Namespace of a store inside the cluster, instead of addresses."""
    api_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the API server, which the conductor talks to."""
    api_ports: Ports = (443, 6443)
    hub: bool = True
    """Whether prep may go out on port 443, to fetch models and datasets."""
    extra: tuple[Egress, ...] = ()
    """What all pods may reach besides: a proxy, a node-local DNS cache, the EKS Pod Identity agent
    (169.254.170.23/32, port 80)."""


class Monitoring(Closed):
    """For clusters with Prometheus's operator."""

    enabled: bool = False
    """Figures of the training, a PodMonitor, an alert for a stalled step, Grafana's dashboard."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 9400
    stalled_after_seconds: Count = 900
    """Without a step for so long, the alert fires."""


class Cluster(Closed):
    """One cluster."""

    store: str
    """`s3://bucket/prefix`."""
    store_endpoint: str | None = None
    """AWS_ENDPOINT_URL_S3, for anything but AWS."""
    namespace: Name = "default"
    images: Images = Images()
    identity: Identity = Identity()
    network: Network = Network()
    node_selector: dict[str, str] = {}
    """Besides the GPU's product, which follows from the recipe's hardware."""
    tolerations: tuple[Toleration, ...] = (
        Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),
    )
    """Of pods that ask for GPUs."""
    priority_class: str | None = None
    queue: str | None = None
    """Kueue's LocalQueue (`kueue.x-k8s.io/queue-name`)."""
    scratch_storage_class: str | None = None
    """Storage class of each pod's scratch volume (node-local NVMe); null: the node's own disk."""
    model_cache_claim: Name | None = None
    """PersistentVolumeClaim, best ReadWriteMany, that keeps base models between pods; null: each
    pod fetches the model from the store."""
    monitoring: Monitoring = Monitoring()
    env: dict[str, str] = {}
    """For all stages; never a secret."""
    env_from_secrets: tuple[Name, ...] = ()
    """Secrets of the namespace whose keys become environment variables."""
    deadline_hours: Count = 72
    """A stage that runs longer is ended."""
    keep_finished_hours: Count = 24
    """Jobs and pods stay this long after they end."""
