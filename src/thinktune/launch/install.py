"""Helm releases of a run: one per stage, installed once, and one for its conductor.

Called by `submit`, `cancel` and `delete`.
"""

from thinktune.launch.charts import chart_folder, helm, release_name
from thinktune.launch.kube import Kube
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.task import STAGES

CONDUCTOR = "conductor"
TAKEN = ("cannot re-use a name", "cannot reuse a name", "already exists", "in progress")
"""What helm says where another submit was first."""


def install(release: str, chart: str, namespace: str, values: str) -> bool:
    """Installs a release; False where somebody else just did. Raises what `helm` raises."""
    try:
        folder = str(chart_folder(chart))
        helm("install", release, folder, "--namespace", namespace, "--values", "-", stdin=values)
    except SpecInvalid as error:
        if any(words in error.fault for words in TAKEN):
            return False
        raise
    return True


def uninstall(release: str, namespace: str) -> bool:
    """Removes a release and all it made; pods get their grace period. False: there was none."""
    place = ("--namespace", namespace)
    try:
        helm("status", release, *place)
    except SpecInvalid as error:
        if "not found" in error.fault:
            return False
        raise
    helm("uninstall", release, *place, "--cascade", "foreground", "--ignore-not-found")
    return True


def releases(run: str) -> list[str]:
    """Names of all releases that a run may have; the conductor first, so that it starts no more."""
    return [release_name(run, CONDUCTOR), *(release_name(run, stage) for stage in STAGES)]


def running_pods(kube: Kube, run: str) -> list[str]:
    """Pods of a run that have not ended."""
    return [
        pod["metadata"]["name"]
        for release in releases(run)
        for pod in kube.pods(release)
        if pod["status"].get("phase") in ("Pending", "Running")
    ]
