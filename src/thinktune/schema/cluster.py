"""A cluster as its user describes it: where images and artifacts are, who may read them.

One YAML file beside the recipes, or wherever `--cluster` says. Nothing in it depends on a recipe.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from thinktune.schema.catalog import Count, Name
from thinktune.schema.closed import Closed
from thinktune.schema.kube_names import (
    LabelKey,
    Labels,
    LabelValue,
    Namespace,
    ObjectName,
    OtherLabels,
    QueueName,
    Registry,
    Tag,
)
from thinktune.schema.stages import Stage

RESERVED = re.compile(r"HOME|POD_NAME|MASTER_ADDR|MASTER_PORT|THINKTUNE_.*")
"""Variables that the chart sets itself."""
SECRET = re.compile(r"(.*_)?(SECRET|TOKEN|PASSWORD|PASSWD|(ACCESS|API|PRIVATE)_?KEY(_ID)?)")
"""Names of variables that hold credentials."""
CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""In an address."""


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; write addresses as in 10.0.0.0/8") from None


Cidr = Annotated[str, AfterValidator(_network)]
Hours = Annotated[int, Field(gt=0, le=10 * 365 * 24)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Part = Stage | Literal["conductor"]
"""What has a pod of its own."""


class Images(Closed):
    """Where the images are: `<registry>/<repository>:<tag>`."""

    registry: Registry = "ghcr.io/thinktune"
    tag: Tag | None = None
    """Null: the version of the launcher."""
    digests: dict[Stage, Digest] = {}
    """`sha256:…` by stage; takes the tag's place."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the namespace that open the registry."""


class Toleration(Closed):
    """As Kubernetes has it."""

    key: LabelKey | None = None
    """Null, with `Exists`: of every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Null: of every effect."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("'Exists' takes no value; leave out value, or write operator: Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("without a key it must be operator: Exists; name the taint's key")
        return self


class Nodes(Closed):
    """Which nodes take a pod."""

    node_selector: Labels = {}
    tolerations: tuple[Toleration, ...] = ()
    """As in a pod: `{key: dedicated, value: gpu, effect: NoSchedule}`."""


class Identity(Closed):
    """Who a stage is to the store."""

    service_accounts: dict[Part, ObjectName] = {}
    """Accounts that are there, by stage or `conductor`, for identities bound to an account's name
    (EKS Pod Identity, GKE). The others get one of their own per run."""
    annotations: dict[LabelKey, str] = {}
    """Of the accounts that are made: `eks.amazonaws.com/role-arn` and the like."""
    pod_labels: OtherLabels = {}
    """Of all pods: `azure.workload.identity/use` and the like."""
    secret: ObjectName | None = None
    """Secret of the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; null where the
    service account is enough."""
    model_hub_secret: ObjectName | None = None
    """Secret with HF_TOKEN, for gated models; prep alone gets it."""


Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[tuple[Port, ...], Field(min_length=1)]
Addresses = Annotated[tuple[Cidr, ...], Field(min_length=1)]
"""CIDRs. An empty list would mean everybody to Kubernetes."""


class Egress(Closed):
    """A way out."""

    cidr: Cidr
    port: Port
    protocol: Literal["TCP", "UDP"] = "TCP"


class Dns(Closed):
    """The cluster's name service, as its pods are labeled."""

    namespace: Namespace = "kube-system"
    labels: Labels = {"k8s-app": "kube-dns"}
    port: Port = 53


class Network(Closed):
    """What pods may reach. Anything else is denied, in and out."""

    policy: bool = True
    """Off where the cluster enforces none or has its own."""
    store_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the store."""
    store_ports: Ports | None = None
    """Of the store's pods, where it is inside the cluster; null: the port of `store_endpoint`."""
    store_namespace: Namespace | None = None
    """Namespace of a store inside the cluster, instead of addresses; null: as `store_endpoint`
    says, if it ends in `.svc` and `store_cidrs` is not given."""
    dns: Dns = Dns()
    api_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the API server, which the conductor talks to."""
    api_ports: Ports = (443, 6443, 8443, 16443)
    """Its own, not its Service's: these are those of clouds, kubeadm, minikube, MicroK8s."""
    hub: bool = True
    """Whether prep may go out on port 443, to fetch models and datasets."""
    extra: tuple[Egress, ...] = ()
    """What all pods may reach besides: a proxy, a node-local DNS cache, the EKS Pod Identity agent
    (169.254.170.23/32, port 80)."""


class Monitoring(Closed):
    """For clusters with Prometheus's operator."""

    enabled: bool = False
    """Figures of the training, a PodMonitor, alerts, Grafana's dashboard."""
    labels: OtherLabels = {}
    """Of PodMonitor and PrometheusRule, where Prometheus chooses by them (`release: …`)."""
    namespace: Namespace | None = None
    """Prometheus's, from which alone pods then let themselves be asked; null: from anywhere."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 9400
    stalled_after_seconds: Count = 900
    """Without a step for so long, the alert fires."""


class Prep(Closed):
    """What a pod of prep asks for, whose needs follow from the data."""

    cpus: Count | None = None
    """Null: 3, or what the recipe's hardware has if that is less."""
    memory_gib: Count | None = None
    """Null: 11, likewise. All rows that pass the filters are held in memory: 30,000 of 6.5 kB take
    2.2 GB."""


class Cluster(Closed):
    """One cluster."""

    store: str
    """`s3://bucket/prefix`."""
    store_endpoint: str | None = None
    """AWS_ENDPOINT_URL_S3, for anything but AWS."""
    namespace: Namespace = "default"
    images: Images = Images()
    identity: Identity = Identity()
    network: Network = Network()
    gpu_nodes: Nodes = Nodes()
    """For pods that ask for GPUs. The GPU's product follows from the recipe's hardware, and the
    taint `nvidia.com/gpu` is tolerated in any case."""
    cpu_nodes: Nodes = Nodes()
    """For the others: prep, the conductor, and all of a recipe without GPUs."""
    prep: Prep = Prep()
    hardware_nodes: dict[Name, Nodes] = {}
    """By hardware entry, instead of `gpu_nodes`; a selector takes the place of the product's label
    as well (`cloud.google.com/gke-accelerator` where nodes have no `nvidia.com/gpu.product`)."""
    priority_class: ObjectName | None = None
    queue: QueueName | None = None
    """Kueue's LocalQueue (`kueue.x-k8s.io/queue-name`)."""
    scratch_storage_class: ObjectName | None = None
    """Storage class of each pod's scratch volume (node-local NVMe); null: the node's own disk."""
    model_cache_claim: ObjectName | None = None
    """PersistentVolumeClaim, best ReadWriteMany, that keeps base models between pods; null: each
    pod fetches the model from the store."""
    monitoring: Monitoring = Monitoring()
    env: dict[str, str] = {}
    """For all stages; never a secret."""
    env_from_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the namespace whose keys become environment variables."""
    deadline_hours: Hours = 72
    """A stage that runs longer is ended."""
    keep_finished_hours: Hours = 24
    """Jobs and pods stay this long after they end."""

    @field_validator("store")
    @classmethod
    def _is_a_bucket(cls, store: str) -> str:
        bucket, _, prefix = store.removeprefix("s3://").partition("/")
        parts = prefix.removesuffix("/").split("/") if prefix else []
        odd = {"", ".", ".."} & set(parts) or re.search(r"[\s\\?#\x00-\x1f\x7f]", prefix)
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}", bucket)
        if not store.startswith("s3://") or not named or odd:
            raise ValueError(f"'{store}' is no bucket; write s3://bucket or s3://bucket/prefix")
        return store

    @field_validator("store_endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            fault = "write it as http://host:port or https://host"
            try:
                url = urlsplit(endpoint)
                whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
            except ValueError as error:
                raise ValueError(f"{error}; {fault}") from None
            if not whole or url.username or url.password:
                raise ValueError(f"'{endpoint}' is no address without credentials; {fault}")
        return endpoint

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"'{name}' is no name for a variable; use letters, digits and _")
            if RESERVED.fullmatch(name):
                raise ValueError(f"'{name}' is set by the chart; leave it out")
            if SECRET.fullmatch(name.upper()) or CREDENTIALS.search(value):
                raise ValueError(
                    f"'{name}' is a credential, and would stand in each release; "
                    "put it into a secret and name that in env_from_secrets"
                )
        return env

    @property
    def store_location(self) -> tuple[str | None, tuple[int, ...]]:
        """The store's namespace, if it is inside the cluster, and its ports."""
        url = urlsplit(self.store_endpoint or "https://")
        port = url.port or (80 if url.scheme == "http" else 443)
        inside = re.fullmatch(r"[^.]+\.([^.]+)\.svc(\..*)?", url.hostname or "")
        by_address = "store_cidrs" in self.network.model_fields_set
        namespace = self.network.store_namespace
        if inside and namespace is None and not by_address:
            namespace = inside[1]
        return namespace, self.network.store_ports or (port,)
