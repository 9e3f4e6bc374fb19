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


def install(release: str, chart: str, kube: Kube, values: str) -> bool:
    """Installs a release; False where there is one of that name. Raises what `helm` raises."""
    folder = str(chart_folder(chart))
    try:
        helm("install", release, folder, "--values", "-", *_place(kube), stdin=values)
    except SpecInvalid as error:
        if any(words in error.fault for words in TAKEN):
            return False
        raise
    return True


def uninstall(release: str, kube: Kube) -> bool:
    """Removes a release and waits until all it made is gone; pods get their grace period. False:
    there was none."""
    try:
        helm("status", release, *_place(kube))
    except SpecInvalid as error:
        if "not found" in error.fault:
            return False
        raise
    patience = ("--cascade", "foreground", "--wait", "--timeout", "35m", "--ignore-not-found")
    helm("uninstall", release, *patience, *_place(kube))
    return True


def releases(run: str) -> list[str]:
    """Names of all releases that a run may have; the conductor first, so that it starts no more."""
    return [release_name(run, CONDUCTOR), *(release_name(run, stage) for stage in STAGES)]


def _place(kube: Kube) -> tuple[str, ...]:
    """Where helm works: where we do."""
    context = ("--kube-context", kube.context) if kube.from_kubeconfig else ()
    return ("--namespace", kube.namespace, *context)
