"""A real S3 server (SeaweedFS, from PyPI) for tests, on free ports of this machine.

Import it from any test: `with s3_server(folder) as server: ...`. It is up in about 3 s, takes
400 MB, and ends with the block, or with the test process if that is killed.
"""

import ctypes
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

BUCKET = "bucket-of-tests"
READY_S = 60
STARTS = 3

_KEYS = ("access-of-tests", "secret-of-tests")
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


@dataclass(frozen=True)
class S3Server:
    """Where it listens and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """What a process needs to use it, and nothing of what this machine is configured for."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "NO_PROXY": "127.0.0.1",
        }

    def make_bucket(self, name: str) -> None:
        """Makes it, past whatever the environment says."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        client.close()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Runs one with its data below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(STARTS):
        ports = _free_ports()
        with _process(folder / str(start), ports) as process:
            endpoint = f"http://127.0.0.1:{ports['s3.port']}"
            if _ready(process, endpoint):
                yield S3Server(endpoint, *_KEYS)
                return
    log = (folder / str(STARTS - 1) / "log").read_text()
    raise RuntimeError(f"the S3 server does not start:\n{log[-3000:]}")


@contextmanager
def _process(folder: Path, ports: Mapping[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    data = folder / "data"
    data.mkdir(parents=True)
    access, secret = _KEYS
    admin = {
        "name": "tests",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [admin]}))
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        f"-filer.localSocket={folder}/filer.sock",
        "-s3",
        f"-s3.localSocket={folder}/s3.sock",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=512",
        "-volume.max=50",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, preexec_fn=_die_with_parent
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _ready(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def _free_ports() -> dict[str, int]:
    with ExitStack() as held:
        ports = {}
        for name in _PORTS:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports[name] = listener.getsockname()[1]
        return ports
