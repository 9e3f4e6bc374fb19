"""Jobs, pods and manifests as the API server and the store give them."""

from typing import Any

from thinktune.launch.cluster.kube import WAITS
from thinktune.schema.manifest import FileEntry, Manifest

NOW = "2026-11-22T10:00:00+00:00"


def job(**status: Any) -> dict[str, Any]:
    labels = {"thinktune.dev/run": "r"}
    metadata = {"name": "r-train", "labels": labels, "creationTimestamp": "2026-11-22T09:00:00Z"}
    return {"metadata": metadata, "spec": {}, "status": status}


def failed(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
    return job(conditions=[condition])


def pod(phase: str = "Pending", **status: Any) -> dict[str, Any]:
    container = {"resources": {"limits": {"nvidia.com/gpu": "4", "cpu": "86400m"}}}
    spec = {"containers": [container], "nodeSelector": {"nvidia.com/gpu.product": "X"}}
    return {"metadata": {"name": "r-train-1"}, "spec": spec, "status": {"phase": phase, **status}}


def waiting_job() -> dict[str, Any]:
    held = job()
    held["spec"]["suspend"] = True
    held["metadata"]["annotations"] = {WAITS: "true"}
    return held


def manifest(kind: str, inputs: dict[str, str]) -> Manifest:
    file = FileEntry(name="f", size=1, sha256="0" * 64)
    return Manifest(
        kind=kind, run="r", attempt="a", files=(file,), inputs=inputs, task_sha256=None, created=NOW
    )
