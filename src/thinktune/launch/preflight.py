"""What is checked before anything is made: namespace, secrets, deadline, nodes.

Called by `submit`, `render` and `doctor`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from thinktune.launch.cluster import capacity
from thinktune.launch.cluster.api import Forbidden, Unauthenticated
from thinktune.launch.cluster.capacity import Node, Shortage
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.runs import Run, stage_values
from thinktune.launch.values import asked_models, nodes_for
from thinktune.recipes.compose import Catalog
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import InputMissing, SpecInvalid, near_misses
from thinktune.schema.llm import LlmSpec
from thinktune.schema.recipe import Recipe
from thinktune.schema.stages import STAGE_INFO, Stage

TRACKER_KEYS = {"wandb": "WANDB_API_KEY"}


@dataclass(frozen=True)
class Request:
    """What is asked of a cluster."""

    run: Run
    recipe: Recipe
    catalog: Catalog
    cluster: Cluster
    stages: Sequence[Stage]
    force: bool = False
    """Submit although no node there could take it: an autoscaler may bring one."""


def check_names(cluster: Cluster, catalog: Catalog) -> None:
    """Raises SpecInvalid for hardware that the cluster file names and nobody knows."""
    for name in cluster.hardware_nodes:
        if name not in catalog.hardware:
            fault = f"no hardware is called '{name}'"
            raise SpecInvalid("hardware_nodes", fault, near_misses(name, catalog.hardware))


def check_deadline(run: Run, cluster: Cluster, stages: Sequence[Stage]) -> None:
    """Raises SpecInvalid where the plan takes longer than a Job may."""
    hours, most = run.plan.hours, cluster.deadline_hours
    if _has_training(stages) and hours is not None and hours > most:
        fault = f"training takes about {hours:.0f} h, and deadline_hours ends it after {most}"
        raise SpecInvalid(f"run {run.id}", fault, "raise it in the cluster file")


def _has_training(stages: Sequence[Stage]) -> bool:
    """Whether one of the stages is sized, timed and tracked as a training."""
    return any(STAGE_INFO[stage].gpus == "all" for stage in stages)


def check_namespace_and_secrets(request: Request, kube: Kube) -> None:
    """Raises SpecInvalid for a namespace that is not there, InputMissing for a secret."""
    cluster = request.cluster
    name = cluster.namespace
    with _what_may_be_unseen():
        if kube.namespace_object() is None:
            fault = "there is no such namespace"
            remedy = f"kubectl create namespace {name}, or set namespace in the cluster file"
            raise SpecInvalid(f"namespace {name}", fault, remedy)
    for secret in secrets_of(cluster):
        with _what_may_be_unseen():
            if kube.secret_keys(secret) is None:
                fault = f"no secret {secret}, which the cluster file names"
                raise InputMissing(f"namespace {name}", fault, secret_remedy(cluster, secret))
    with _what_may_be_unseen():
        check_language_model(request, kube)
    if _has_training(request.stages):
        with _what_may_be_unseen():
            check_trackers(request, kube)


@contextlib.contextmanager
def _what_may_be_unseen() -> Iterator[None]:
    """Without permission to look, skip the check: the pod will fail and say so. Somebody whom the
    API server does not know gets no further."""
    try:
        yield
    except Unauthenticated:
        raise
    except Forbidden:
        return


def check_language_model(request: Request, kube: Kube) -> None:
    """Raises InputMissing where a stage would ask a language model without its key."""
    for stage in request.stages:
        for setting, asked in asked_models(request.run.tasks[stage]):
            if asked.key_variable is not None:
                _check_key(request, kube, setting, asked, asked.key_variable)


def _check_key(request: Request, kube: Kube, setting: str, asked: LlmSpec, variable: str) -> None:
    namespace, secret = request.cluster.namespace, asked.key_secret
    names = [secret] if secret is not None else list(request.cluster.env_from_secrets)
    if any(variable in (kube.secret_keys(name) or ()) for name in names):
        return
    named = f"secret {secret}" if secret is not None else "secret of env_from_secrets"
    fault = f"{setting} asks {asked.host[0]}, and no {named} has {variable}"
    remedy = (
        f"kubectl -n {namespace} create secret generic {secret or 'llm-key'}"
        f" --from-literal={variable}=…"
    )
    if secret is None:
        remedy += f" and --set {setting}.llm.key_secret=llm-key"
    raise InputMissing(f"namespace {namespace}", fault, remedy)


def check_trackers(request: Request, kube: Kube) -> None:
    """Raises InputMissing where a tracker would find no key, once it has its GPUs."""
    cluster = request.cluster
    given = {key for name in cluster.env_from_secrets for key in kube.secret_keys(name) or ()}
    for tracker in request.recipe.train.tracking:
        key = TRACKER_KEYS.get(tracker)
        if key is not None and key not in given:
            fault = f"the recipe tracks with {tracker}, and no secret of env_from_secrets has {key}"
            remedy = (
                f"kubectl -n {cluster.namespace} create secret generic {tracker}"
                f" --from-literal={key}=… and env_from_secrets: [{tracker}],"
                " or --set 'train.tracking=[]'"
            )
            raise InputMissing(f"namespace {cluster.namespace}", fault, remedy)


def secrets_of(cluster: Cluster) -> list[str]:
    """Names of all secrets that pods will want."""
    identity = cluster.identity
    own = (identity.secret, identity.model_hub_secret, *cluster.env_from_secrets)
    return [name for name in (*own, *cluster.images.pull_secrets) if name]


def secret_remedy(cluster: Cluster, secret: str) -> str:
    """The command that makes the secret."""
    make = f"kubectl -n {cluster.namespace} create secret"
    if secret in cluster.images.pull_secrets:
        registry = cluster.images.registry.partition("/")[0]
        options = f"--docker-server={registry} --docker-username=… --docker-password=…"
        return f"{make} docker-registry {secret} {options}"
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    if secret == cluster.identity.model_hub_secret:
        keys = ["HF_TOKEN"]
    elif secret in cluster.env_from_secrets:
        keys = ["NAME"]
    return f"{make} generic {secret} {' '.join(f'--from-literal={key}=…' for key in keys)}"


@dataclass(frozen=True)
class NodeCheck:
    """What the nodes of a cluster have for a run."""

    nodes: Sequence[Node] | None
    """None: to see them takes a right that we lack."""
    said: str
    """Which GPUs are free, in one line."""
    short: Shortage | None = None
    """What the first stage lacks that these nodes can never take."""
    stage: Stage | None = None
    """The stage that is short of something."""


def check_nodes(request: Request, kube: Kube, stages: Sequence[Stage]) -> NodeCheck:
    """Looks at the cluster's nodes; whether a shortage is an error is for the caller to say."""
    try:
        found = kube.nodes()
    except Unauthenticated:
        raise
    except Forbidden as error:
        return NodeCheck(None, f"cluster: GPUs unknown ({error.fault})")
    try:
        nodes = capacity.nodes_of(found, kube.all_pods())
        free = capacity.free_gpus(nodes)
        said = [f"{some} of {every} {product} free" for product, (some, every) in free.items()]
    except Forbidden:
        nodes = capacity.nodes_of(found, ())
        every_gpu = capacity.free_gpus(nodes)
        said = [f"{every} {product}, free or not" for product, (_, every) in every_gpu.items()]
    check = NodeCheck(nodes, f"cluster: {', '.join(said) or 'no GPUs'}")
    for stage in stages:
        short = shortage(request, request.run, stage, nodes)
        if short is not None:
            return replace(check, short=short, stage=stage)
    return check


def shortage(request: Request, run: Run, stage: Stage, nodes: Sequence[Node]) -> Shortage | None:
    """What a stage lacks on these nodes; `run` may be planned for other hardware than was asked."""
    values = stage_values(run, stage, request.cluster)
    section, _ = nodes_for(stage, values.resources.gpus, run.hardware, request.cluster)
    return capacity.shortage(values, nodes, section)
