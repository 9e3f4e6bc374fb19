"""A cluster in memory, a store in a folder, and the launcher between them, with the real helm."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kube_cluster import Cluster
from kube_server import KubeServer, kube_server
from launching import NAMESPACE, Bring, make_job, request, use_kubeconfig

from thinktune.launch import cancel, conductor, doctor, submit
from thinktune.launch.cluster import install
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.preflight import Request
from thinktune.launch.runs import pipeline_of
from thinktune.launch.status import tail
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES
from thinktune.store import Store, open_store

TOOLS = Path(__file__).parents[3] / ".tools"


@pytest.fixture(scope="session", autouse=True)
def helm_on_the_path() -> Iterator[None]:
    """The one that `make` fetches, where it is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("GOGC", "off")  # it is over before collecting its garbage pays
        yield


@pytest.fixture
def helm() -> None:
    """For tests that install; a test without helm would prove nothing, so it fails."""
    if shutil.which("helm") is None:
        pytest.fail("helm is not there; `make .tools/helm` fetches it")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the launcher waits for comes at once here, or never."""
    for module in (conductor, install, cancel, doctor):
        monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(conductor, "GONE_S", 0.3)
    monkeypatch.setattr(install, "APPEARS_S", 0.2)
    monkeypatch.setattr(submit, "ABANDONED_S", 0.3)
    monkeypatch.setattr(tail, "AGAIN_S", 0.01)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """The API server that the kubeconfig leads to."""
    with kube_server() as server:
        use_kubeconfig(server.kubeconfig(tmp_path, NAMESPACE), monkeypatch)
        yield server


@pytest.fixture
def cluster(api: KubeServer) -> Cluster:
    """Its namespace, and a node without GPUs."""
    found = Cluster(api, NAMESPACE)
    found.add_node("plain")
    return found


@pytest.fixture
def kube(cluster: Cluster) -> Kube:
    """The launcher's own client."""
    return Kube(NAMESPACE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture(scope="session")
def asked() -> Request:
    """A run on one CPU: these stages, whichever others the table has."""
    return request(stages=("prep", "train", "evaluate"))


@pytest.fixture(scope="session")
def first() -> Request:
    """The same run's first stage alone."""
    return request(stages=("prep",))


@pytest.fixture
def plan(asked: Request, cluster: Cluster) -> Pipeline:
    """All stages, submitted: as the chart makes their Jobs."""
    for stage in STAGES:
        make_job(cluster, asked.run, stage, waits=stage != "prep")
    return pipeline_of(asked.run, STAGES, asked.cluster)


@pytest.fixture
def bring(helm: None, kube: Kube, store: Store, say: Callable[[str], None]) -> Bring:
    """A submit to its end."""
    return lambda wanted: submit.submit(wanted, kube, store, say)


@pytest.fixture
def said() -> list[str]:
    """What the launcher says."""
    return []


@pytest.fixture
def say(said: list[str]) -> Callable[[str], None]:
    return said.append
