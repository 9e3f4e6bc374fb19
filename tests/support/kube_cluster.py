"""What a scheduler, the kubelets and the Job controller do, one move at a time, at a test's word.

Objects look as those of Kubernetes 1.34 do. Used by the tests of the launcher.
"""

import time
from datetime import UTC, datetime
from typing import Any

from kube_objects import EVENTS, JOBS, NAMESPACES, NODES, PODS, SECRETS, Object, now
from kube_server import KubeServer

INDEX = "batch.kubernetes.io/job-completion-index"


class Cluster:
    """One namespace of a server, and the nodes below it."""

    def __init__(self, server: KubeServer, namespace: str) -> None:
        self.server, self.objects, self.namespace = server, server.objects, namespace
        self.objects.create(NAMESPACES, "", {"metadata": {"name": namespace}})

    # -- what is there from the beginning

    def add_node(self, name: str, gpus: int = 0, product: str = "", **taint: str) -> None:
        """A node with room for anything, but for its GPUs."""
        has = {"cpu": "200", "memory": "1000Gi", "ephemeral-storage": "4000Gi"}
        labels = {"nvidia.com/gpu.product": product} if gpus else {}
        node = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [taint] if taint else []},
            "status": {"allocatable": has | ({"nvidia.com/gpu": str(gpus)} if gpus else {})},
        }
        self.objects.create(NODES, "", node)

    def add_secret(self, name: str, *keys: str) -> None:
        """A Secret of the user's."""
        body = {"metadata": {"name": name}, "data": dict.fromkeys(keys, "eA==")}
        self.objects.create(SECRETS, self.namespace, body)

    # -- what the Job controller does

    def job(self, name: str) -> Object:
        """As it is now. Raises Refused."""
        return self.objects.get(JOBS, self.namespace, name)

    def jobs(self) -> list[str]:
        """Names of all."""
        return [job["metadata"]["name"] for job in self.objects.list(JOBS, self.namespace)]

    def pod_of(self, job_name: str, phase: str = "Pending", index: int | None = None) -> str:
        """Makes a Job's next pod, in that phase; its name."""
        job = self.job(job_name)
        template = job["spec"]["template"]
        own = {"job-name": job_name} | ({INDEX: str(index)} if index is not None else {})
        owner = {"kind": "Job", "name": job_name, "uid": job["metadata"]["uid"]}
        metadata = {
            "generateName": f"{job_name}-",
            "labels": template["metadata"]["labels"] | own,
            "ownerReferences": [owner | {"apiVersion": "batch/v1", "controller": True}],
        }
        pod = self.objects.create(
            PODS, self.namespace, {"metadata": metadata, "spec": template["spec"]}
        )
        name = str(pod["metadata"]["name"])
        self.event(job, "SuccessfulCreate", f"Created pod: {name}", kind="Normal")
        self._set(PODS, name, {"phase": "Pending"})
        if phase == "Running":
            self.run(name)
        return name

    def refuse_pods(self, job_name: str, message: str, times: int = 1) -> None:
        """The API server lets the Job controller make none."""
        job = self.job(job_name)
        said = f'Error creating: pods "{job_name}-x" is forbidden: {message}'
        self.event(job, "FailedCreate", said, count=times)

    def end_job(self, name: str, kind: str, reason: str = "", message: str = "") -> None:
        """`Complete` or `Failed`."""
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self._set(JOBS, name, {"conditions": [condition | {"lastTransitionTime": now()}]})

    # -- what the scheduler and kubelets do

    def run(self, pod: str) -> None:
        """Its containers start."""
        self._set(PODS, pod, {"phase": "Running", "startTime": now(), "conditions": None})
        self._containers(pod, {"running": {"startedAt": now()}})

    def say(self, pod: str, *lines: str) -> None:
        """Into its log; containerd gives each line a nanosecond of its own."""
        for line in lines:
            seconds, rest = divmod(time.time_ns(), 10**9)
            moment = datetime.fromtimestamp(seconds, UTC)
            stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
            self.server.logs[pod].append((stamp, line))

    def end(self, pod: str, code: int = 0, reason: str = "", message: str = "") -> None:
        """Its containers end."""
        reason = reason or ("Error" if code else "Completed")
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now()}
        self._containers(pod, {"terminated": ended})
        self._set(PODS, pod, {"phase": "Failed" if code else "Succeeded"})

    def hold(self, pod: str, reason: str, message: str) -> None:
        """Its containers wait: `ImagePullBackOff` and the like."""
        self._containers(pod, {"waiting": {"reason": reason, "message": message}})

    def find_no_node(self, pod: str, message: str) -> None:
        """The scheduler looks for one in vain."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        self._set(PODS, pod, {"conditions": [condition | {"message": message}]})

    def event(
        self, about: Object, reason: str, message: str, *, kind: str = "Warning", count: int = 1
    ) -> None:
        """Something that is told of an object."""
        metadata = about["metadata"]
        reference = {"kind": about["kind"], "name": metadata["name"], "uid": metadata.get("uid")}
        body = {
            "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}"},  # listed by name
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": count,
            "lastTimestamp": now(),
        }
        self.objects.create(EVENTS, self.namespace, body)

    def pods(self, job_name: str = "") -> list[Object]:
        """Of a Job, or all."""
        labels = f"job-name={job_name}" if job_name else ""
        return self.objects.list(PODS, self.namespace, labels)

    def _containers(self, pod: str, state: Object) -> None:
        spec = self.objects.get(PODS, self.namespace, pod)["spec"]
        statuses = [
            {"name": each["name"], "image": each["image"], "state": state}
            for each in spec["containers"]
        ]
        self._set(PODS, pod, {"containerStatuses": statuses})

    def _set(self, resource: Any, name: str, status: Object) -> None:
        self.objects.patch(resource, self.namespace, name, {"status": status})
