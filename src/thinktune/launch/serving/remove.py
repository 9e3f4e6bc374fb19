"""Ends a server: its pods get their grace period first, and what opens the store to them goes last.

Called by `cancel` and `delete`.
"""

from thinktune.launch.cluster.install import installed_values, uninstall_release, wait_until
from thinktune.launch.cluster.kube import INSTANCE_LABEL, SERVER_LABEL, Kube
from thinktune.launch.serving.live import LiveServer, live_server
from thinktune.launch.status.watch import Say
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.keys import replicas_prefix
from thinktune.store import Store

MARGIN_S = 60.0


def remove(server: LiveServer, kube: Kube, store: Store, say: Say) -> None:
    """Ends it. Raises ServiceUnavailable where pods outlive their grace period."""
    name, release = server.name, server.release
    grace = [int(pod["spec"].get("terminationGracePeriodSeconds", 30)) for pod in server.pods]
    if server.pods:
        say(f"{name}: its answers get up to {max(grace)} s to end")
    kube.delete_workload(server.workload)
    limit_s = max(grace, default=0) + MARGIN_S
    if not wait_until(lambda: live_server(name, kube, store) is None, limit_s):
        fault = "its pods outlive their grace period"
        remedy = "are their nodes still there? kubectl get nodes"
        raise ServiceUnavailable(f"server {name}", fault, remedy)
    if installed_values(release, kube) is not None:
        uninstall_release(release, kube)
    else:  # what `kubectl apply` made of rendered manifests
        kube.delete_owned(f"{INSTANCE_LABEL}={release},{SERVER_LABEL}={name}")
    if kube.delete_secret(f"{release}-key", f"{SERVER_LABEL}={name}"):
        say(f"{name}: the key of its clients is removed")
    store.delete_prefix(replicas_prefix(name))
    say(f"{name}: removed")
