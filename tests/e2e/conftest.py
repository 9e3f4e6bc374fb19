"""A namespace under the restricted Pod Security level and an S3 server, on any KUBECONFIG.

`make e2e` builds and loads the images first. Everything is removed at the end.
"""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMESPACE, STORE = "thinktune-e2e", "thinktune-e2e-store"
SECRET = "secret-of-tests"
BUCKET = "artifacts"
MAKE_BUCKET = (
    "import boto3; boto3.client('s3', endpoint_url='http://s3:8333',"
    f" region_name='us-east-1').create_bucket(Bucket='{BUCKET}')"
)
KEYS = {
    "AWS_ACCESS_KEY_ID": "access-of-tests",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Place:
    """Where the tests run."""

    namespace: str
    description: Path
    """The launcher's cluster file."""

    def kubectl(self, *arguments: str) -> str:
        """In the namespace; its output."""
        return kubectl("-n", self.namespace, *arguments)

    def job(self, name: str) -> dict[str, Any]:
        """As the API server has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "job", name, "-o", "json"))
        return found

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


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    kubectl("apply", "-f", str(Path(__file__).parent / "s3" / "s3.yaml"))
    kubectl("create", "namespace", NAMESPACE)
    try:
        level = "pod-security.kubernetes.io/enforce=restricted"
        kubectl("label", "namespace", NAMESPACE, level)
        literals = [f"--from-literal={name}={value}" for name, value in KEYS.items()]
        kubectl("-n", NAMESPACE, "create", "secret", "generic", "store-keys", *literals)
        kubectl("-n", STORE, "rollout", "status", "deployment/s3", "--timeout=120s")
        _make_bucket()
        description = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
        description.write_text(
            f"store: s3://{BUCKET}/e2e\n"
            f"store_endpoint: http://s3.{STORE}.svc:8333\n"
            f"namespace: {NAMESPACE}\n"
            "images: {registry: localhost}\n"
            "identity: {secret: store-keys}\n"
            f"network: {{store_namespace: {STORE}, store_ports: [8333]}}\n"
        )
        yield Place(NAMESPACE, description)
    finally:
        kubectl("delete", "namespace", NAMESPACE, STORE, "--ignore-not-found")


def _make_bucket() -> None:
    environment = [f"--env={name}={value}" for name, value in KEYS.items()]
    command = ["run", "bucket", "--restart=Never", "--image=localhost/prep:0.1.0", *environment]
    kubectl("-n", STORE, *command, "--command", "--", "python", "-c", MAKE_BUCKET)
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("-n", STORE, "wait", phase, "pod/bucket", "--timeout=60s")


def decoded(secret: dict[str, Any]) -> str:
    """Everything in a secret, as text."""
    return " ".join(base64.b64decode(v).decode() for v in secret.get("data", {}).values())
