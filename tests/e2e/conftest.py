"""A namespace under the restricted Pod Security level, an S3 server and a node that claims to have
GPUs, on any KUBECONFIG; and the launcher as a user has it, outside of the cluster.

`make e2e` builds and loads the images first. Everything is removed at the end.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import COMMAND, Ended, environment, free_port, thinktune
from tiny import seed_store, write_jobs

from thinktune.store import Store, open_store

NAMESPACE, STORE = "thinktune-e2e", "thinktune-e2e-store"
SECRET = "secret-of-tests"
BUCKET = "artifacts"
URL = f"s3://{BUCKET}/e2e"
KEYS = {
    "AWS_ACCESS_KEY_ID": "access-of-tests",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
}
LABEL, PRODUCT, GPUS = "nvidia.com/gpu.product", "Test-GPU", 2
"""The node advertises them (kubernetes.io: advertise extended resources); pods then compute on its
CPUs."""
HARDWARE = {
    "gpu": "Test",
    "product": PRODUCT,
    "gpu_memory_gib": 16.0,
    "bf16_tflops": 1.0,
    "memory_gb_per_s": 20,
    "bf16": True,
    "link": "pcie",
    "host_memory_gib": 12,
    "disk_gib": 20,
}


@dataclass(frozen=True)
class Place:
    """Where the tests run."""

    namespace: str
    description: Path
    """The launcher's cluster file."""
    jobs: Path
    """Catalog and recipes: those that ship and the tiny model's."""
    environment: dict[str, str] = field(default_factory=dict)
    """The launcher's: credentials and the way to the store from here."""

    def kubectl(self, *arguments: str) -> str:
        """In the namespace; its output."""
        return kubectl("-n", self.namespace, *arguments)

    def helm(self, *arguments: str) -> str:
        """In the namespace; its output."""
        command = ["helm", "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Objects of a kind, as the API server has them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, *arguments, "-o", "json"))
        return list(found["items"])

    def job(self, name: str) -> dict[str, Any]:
        """As the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "job", name, "-o", "json"))
        return found

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Of a Job, the oldest first."""
        found = self.get("pods", "-l", f"job-name={job}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def ended(self, name: str, seconds: int = 180) -> dict[str, Any]:
        """The condition with which the Job ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            conditions = self.job(name)["status"].get("conditions", [])
            done = [c for c in conditions if c["type"] in ("Complete", "Failed")]
            if done:
                return dict(done[0])
            time.sleep(1)
        raise AssertionError(self.kubectl("describe", "pods"))

    def thinktune(self, *arguments: str) -> Ended:
        """The launcher, to its end."""
        return thinktune(
            *arguments, *self._cluster(arguments), jobs=self.jobs, more=self.environment
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The launcher, at work."""
        return subprocess.Popen(
            [*COMMAND, *arguments, *self._cluster(arguments)],
            env=environment(self.jobs, self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _cluster(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return () if "--cluster" in arguments else ("--cluster", str(self.description))

    def changed(self, name: str, folder: Path, **changes: Any) -> Path:
        """Another cluster file, with these settings changed."""
        settings = yaml.safe_load(self.description.read_text()) | changes
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    @contextmanager
    def as_(self, config: Path) -> Iterator[None]:
        """The launcher with another kubeconfig."""
        self.environment["KUBECONFIG"] = str(config)
        try:
            yield
        finally:
            del self.environment["KUBECONFIG"]

    def store(self) -> Store:
        """From here."""
        os.environ.update(self.environment)
        return open_store(URL)

    def wait_for_key(self, key: str, seconds: int = 150) -> None:
        """Until the store has it; not longer than until a Job of the run has failed."""
        run = key.split("/")[1]

        def there() -> bool:
            if self.store().head(key) is not None:
                return True
            for job in self.get("jobs", "-l", f"thinktune.dev/run={run}"):
                conditions = job["status"].get("conditions", [])
                if any(c["type"] == "Failed" and c["status"] == "True" for c in conditions):
                    raise AssertionError(self.thinktune("why", run).out)
            return False

        wait_for(there, seconds, key)


def wait_for(what: Callable[[], bool], seconds: int, name: str) -> None:
    """Until it is true."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            pods = kubectl("-n", NAMESPACE, "get", "pods,jobs")
            raise AssertionError(f"{name} did not come within {seconds} s\n{pods}")
        time.sleep(0.3)


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    remove()  # what a run before this one left
    kubectl("apply", "-f", str(Path(__file__).parent / "s3" / "s3.yaml"))
    kubectl("create", "namespace", NAMESPACE)
    node = advertise()
    forward: subprocess.Popen[bytes] | None = None
    try:
        level = "pod-security.kubernetes.io/enforce=restricted"
        kubectl("label", "namespace", NAMESPACE, level)
        literals = [f"--from-literal={name}={value}" for name, value in KEYS.items()]
        kubectl("-n", NAMESPACE, "create", "secret", "generic", "store-keys", *literals)
        kubectl("-n", STORE, "rollout", "status", "deployment/s3", "--timeout=120s")
        port = free_port()
        command = ["kubectl", "-n", STORE, "port-forward", "deployment/s3", f"{port}:8333"]
        forward = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        folder = tmp_path_factory.mktemp("cluster")
        endpoint = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
        found = Place(NAMESPACE, describe(folder), jobs(folder), {**KEYS, **endpoint})
        make_bucket(found)
        seed_store(URL, folder / "model")
        yield found
    finally:
        if forward is not None:
            forward.kill()
        remove()
        kubectl("label", "node", node, f"{LABEL}-")
        capacity(node, None)


def remove() -> None:
    """Both namespaces. Pods first: with their grace period the namespace would take minutes."""
    for kind in ("jobs", "pods"):
        force = ("--all", "--force", "--grace-period=0", "--cascade=background")
        kubectl("-n", NAMESPACE, "delete", kind, *force, "--ignore-not-found")
    kubectl("delete", "namespace", NAMESPACE, STORE, "--ignore-not-found", "--wait")


def describe(folder: Path) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(
        f"store: {URL}\n"
        f"store_endpoint: http://s3.{STORE}.svc:8333\n"
        f"namespace: {NAMESPACE}\n"
        "images: {registry: localhost}\n"
        "identity: {secret: store-keys}\n"
    )
    return path


def jobs(folder: Path) -> Path:
    """The tiny model's recipe, on hardware as small as the node."""
    made = write_jobs(folder / "jobs")
    path = made / "catalog" / "hardware.yaml"
    hardware = yaml.safe_load(path.read_text())
    hardware["one"] = HARDWARE | {"num_gpus": 1, "cpus": 1}
    hardware["two"] = HARDWARE | {"num_gpus": 2, "cpus": 2}
    path.write_text(yaml.safe_dump(hardware))
    recipe = made / "recipes" / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"hardware": "one"}))
    return made


def advertise() -> str:
    """Gives a node GPUs in name; the node. Never one that has some."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    plain = [node["metadata"]["name"] for node in nodes if is_plain(node)]
    assert plain, "no node without GPUs and taints, to which some could be given in name"
    kubectl("label", "node", plain[0], f"{LABEL}={PRODUCT}", "--overwrite")
    capacity(plain[0], str(GPUS))
    return str(plain[0])


def is_plain(node: dict[str, Any]) -> bool:
    """Without taints and GPUs, or with those that a run of these tests gave it before this one."""
    label = node["metadata"]["labels"].get(LABEL)
    gpus = int(node["status"]["capacity"].get("nvidia.com/gpu", 0))
    return not node["spec"].get("taints") and (label == PRODUCT or (label is None and not gpus))


def capacity(node: str, gpus: str | None) -> None:
    """What the node's status says of its GPUs."""
    patch = json.dumps({"status": {"capacity": {"nvidia.com/gpu": gpus}}})
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)


def make_bucket(place: Place) -> None:
    """Once the way to the store is open."""
    import boto3

    os.environ.update(place.environment)
    client = boto3.client("s3")
    until = time.monotonic() + 30
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
