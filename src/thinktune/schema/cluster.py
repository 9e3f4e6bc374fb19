"""The cluster file: where images and artifacts are, and who may read them.

The file is `cluster.yaml`, or the one that `--cluster` names. Nothing in it depends on a recipe.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from thinktune.schema.catalog import Count, Name
from thinktune.schema.closed import Closed
from thinktune.schema.cluster_serve import Serving
from thinktune.schema.errors import near_misses
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
from thinktune.schema.prices import HourlyPrices
from thinktune.schema.stages import IMAGES, Stage

RESERVED = re.compile(r"HOME|POD_NAME|MASTER_ADDR|MASTER_PORT|THINKTUNE_.*")
"""Environment variables that the charts set themselves."""
SECRET = re.compile(r"(.*_)?(SECRET|TOKEN|PASSWORD|PASSWD|(ACCESS|API|PRIVATE)_?KEY(_ID)?)")
"""Names of environment variables that hold credentials."""
CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""Credentials within an address, as in `http://user:password@host`."""


def _image(name: str) -> str:
    if name not in IMAGES:
        raise ValueError(f"there is no image '{name}'; {near_misses(name, IMAGES)}")
    return name


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; write addresses as in 10.0.0.0/8") from None


Cidr = Annotated[str, AfterValidator(_network)]
ImageName = Annotated[str, AfterValidator(_image)]
Hours = Annotated[int, Field(gt=0, le=10 * 365 * 24)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Part = Stage | Literal["conductor", "serve"]
"""What runs in a pod of its own: a stage, the conductor, or a server."""


class Images(Closed):
    """Where the images of the stages are: `REGISTRY/IMAGE:TAG`. Each stage has an image of its own
    name, unless the table of stages gives it another one's."""

    registry: Registry = "ghcr.io/thinktune"
    """Registry and path of the images."""
    tag: Tag | None = None
    """Tag of the images. Null takes the version of the launcher."""
    digests: dict[ImageName, Digest] = {}
    """Digest `sha256:…` by name of the image, which replaces the tag."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When a node pulls an image, as in a pod's `imagePullPolicy`."""
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets in the namespace with the credentials for the registry."""


class Toleration(Closed):
    """A toleration as in a Kubernetes pod."""

    key: LabelKey | None = None
    """Key of the taint. Null, which requires `Exists`, tolerates every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint must have this value (`Equal`) or may have any (`Exists`)."""
    value: LabelValue | None = None
    """Value of the taint, for `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Null tolerates every effect."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("'Exists' takes no value; remove 'value', or write operator: Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("'Equal' needs a key; name the taint's key, or write operator: Exists")
        return self


class Nodes(Closed):
    """Which nodes a pod can run on."""

    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that the pod tolerates, as in `{key: dedicated, value: gpu, effect: NoSchedule}`."""


class Identity(Closed):
    """How pods authenticate to the store and to the model hub."""

    service_accounts: dict[Part, ObjectName] = {}
    """Existing service accounts, by stage, `conductor` or `serve`, for cloud identities that are
    bound to an account's name (EKS Pod Identity, GKE). The others get accounts of their own."""
    annotations: dict[LabelKey, str] = {}
    """Annotations of the service accounts that runs create, such as
    `eks.amazonaws.com/role-arn`."""
    pod_labels: OtherLabels = {}
    """Labels of all pods, such as `azure.workload.identity/use`."""
    secret: ObjectName | None = None
    """Secret in the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Null relies on the
    service account."""
    model_hub_secret: ObjectName | None = None
    """Secret in the namespace with HF_TOKEN, for gated models. Only prep receives it."""


Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[tuple[Port, ...], Field(min_length=1)]
Addresses = Annotated[tuple[Cidr, ...], Field(min_length=1)]
"""CIDR ranges, at least one: to Kubernetes, an empty list would mean every address."""


class Egress(Closed):
    """An address that pods may connect to."""

    cidr: Cidr
    """Range of addresses, such as 10.0.0.0/8."""
    port: Port
    """Port at these addresses."""
    protocol: Literal["TCP", "UDP"] = "TCP"
    """Transport protocol."""


class Dns(Closed):
    """The pods of the cluster's DNS service."""

    namespace: Namespace = "kube-system"
    """Namespace of the DNS pods."""
    labels: Labels = {"k8s-app": "kube-dns"}
    """Labels of the DNS pods."""
    port: Port = 53
    """Port that the DNS pods listen on, over UDP and TCP."""


class Network(Closed):
    """What pods may connect to. A NetworkPolicy denies all other traffic, in and out."""

    policy: bool = True
    """Create a NetworkPolicy for each stage. Turn it off if the cluster enforces none or has its
    own."""
    store_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the store."""
    store_ports: Ports | None = None
    """Ports that the store's pods listen on, if the store runs inside the cluster. Null takes the
    port of `store_endpoint`."""
    store_namespace: Namespace | None = None
    """Namespace of a store inside the cluster, which replaces `store_cidrs`. Null takes it from
    `store_endpoint` if that ends in `.svc` and `store_cidrs` is not given."""
    dns: Dns = Dns()
    api_cidrs: Addresses = ("0.0.0.0/0",)
    """Addresses of the API server, to which the conductor connects."""
    api_ports: Ports = (443, 6443, 8443, 16443)
    """Ports that the API server itself listens on, not those of its Service. The default covers
    managed clusters, kubeadm, minikube and MicroK8s."""
    hub: bool = True
    """Allow prep to connect to port 443 of any address, to fetch models and datasets."""
    extra: tuple[Egress, ...] = ()
    """Further addresses that all pods may connect to, such as a proxy, a node-local DNS cache or
    the EKS Pod Identity agent (169.254.170.23/32, port 80)."""


class Monitoring(Closed):
    """Monitoring of the training, for clusters that run the Prometheus Operator."""

    enabled: bool = False
    """Export metrics of the training, and create a PodMonitor, alerts and a Grafana dashboard."""
    labels: OtherLabels = {}
    """Labels of the PodMonitor and the PrometheusRule, by which Prometheus selects them
    (`release: …`)."""
    namespace: Namespace | None = None
    """Only pods in this namespace may scrape metrics. Null allows pods in any namespace."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 9400
    """Port at which a training pod serves its metrics."""
    stalled_after_seconds: Count = 900
    """The alert fires when a training has finished no step for this many seconds."""


class Prep(Closed):
    """Resources that a prep pod requests, as does the pod of any other stage that never uses GPUs.
    How much prep needs depends on the data."""

    cpus: Count | None = None
    """Number of CPUs. Null requests 3, or what the recipe's hardware has if that is less."""
    memory_gib: Count | None = None
    """Memory in GiB. Null requests 11, or what the recipe's hardware has if that is less.
    `thinktune plan` shows how much of it prep takes: half a GiB, and half a kB a row."""


class Cluster(Closed):
    """One Kubernetes cluster and the store that its pods use."""

    store: str
    """Bucket and prefix for the artifacts, as in `s3://bucket/prefix`."""
    store_endpoint: str | None = None
    """Address of an S3 server other than AWS (AWS_ENDPOINT_URL_S3), as pods reach it."""
    namespace: Namespace = "default"
    """Namespace in which Jobs run."""
    images: Images = Images()
    identity: Identity = Identity()
    network: Network = Network()
    gpu_nodes: Nodes = Nodes()
    """Nodes for pods that request GPUs. The label of the GPU's product follows from the recipe's
    hardware, and the taint `nvidia.com/gpu` is always tolerated."""
    cpu_nodes: Nodes = Nodes()
    """Nodes for pods that request no GPU: prep, the conductor, and every stage of a recipe without
    GPUs."""
    prep: Prep = Prep()
    hardware_nodes: dict[Name, Nodes] = {}
    """Nodes by hardware entry, which replace `gpu_nodes`. A selector given here also replaces the
    label of the GPU's product, for nodes that have another one
    (`cloud.google.com/gke-accelerator`)."""
    priority_class: ObjectName | None = None
    """PriorityClass of all pods."""
    queue: QueueName | None = None
    """LocalQueue of Kueue that Jobs are submitted to (`kueue.x-k8s.io/queue-name`)."""
    scratch_storage_class: ObjectName | None = None
    """Storage class of each pod's scratch volume, such as node-local NVMe. Null uses the node's own
    disk."""
    model_cache_claim: ObjectName | None = None
    """PersistentVolumeClaim, preferably ReadWriteMany, that keeps base models between pods. Null
    makes each pod fetch the model from the store."""
    monitoring: Monitoring = Monitoring()
    serve: Serving = Serving()
    prices: HourlyPrices | None = None
    """What nodes cost, for the money that `thinktune plan` shows. Null shows hours alone."""
    env: dict[str, str] = {}
    """Environment variables of all pods. Names and values that look like credentials are
    refused."""
    env_from_secrets: tuple[ObjectName, ...] = ()
    """Secrets in the namespace whose keys become environment variables of all pods."""
    deadline_hours: Hours = 72
    """Hours after which a running stage is ended."""
    keep_finished_hours: Hours = 24
    """Hours for which Jobs and pods are kept after they end."""

    @field_validator("store")
    @classmethod
    def _is_a_bucket(cls, store: str) -> str:
        bucket, _, prefix = store.removeprefix("s3://").partition("/")
        parts = prefix.removesuffix("/").split("/") if prefix else []
        odd = {"", ".", ".."} & set(parts) or re.search(r"[\s\\?#\x00-\x1f\x7f]", prefix)
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}", bucket)
        if not store.startswith("s3://") or not named or odd:
            raise ValueError(f"'{store}' is not a bucket; write s3://bucket or s3://bucket/prefix")
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
                raise ValueError(f"'{endpoint}' is not an address without credentials; {fault}")
        return endpoint

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"'{name}' is not a variable's name; use letters, digits and _")
            if RESERVED.fullmatch(name):
                raise ValueError(f"'{name}' is set by the chart; remove it")
            if SECRET.fullmatch(name.upper()) or CREDENTIALS.search(value):
                raise ValueError(
                    f"'{name}' is a credential, which would be readable in each Helm release; "
                    "put it into a Secret and name that in env_from_secrets"
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
