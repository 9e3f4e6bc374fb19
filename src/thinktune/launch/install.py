"""Helm releases of a run: one per stage, installed once, and one for its conductor.

Called by `submit`, `cancel` and `delete`.
"""

import time
from collections.abc import Callable

from thinktune.launch.charts import chart_folder, helm, release_name
from thinktune.launch.kube import Kube
from thinktune.spec.errors import SpecInvalid, StoreUnavailable
from thinktune.spec.task import STAGES

CONDUCTOR = "conductor"
LOOK_S = 1.0
ENDING_S = 2100.0
"""How long a Job that is being stopped may take: its pods' grace period, and a margin."""
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
    """Removes a Job, waits until its pods have had their grace period, and then removes the rest of
    its release: what opens the store to them goes last. False: there was none.

    Raises StoreUnavailable where pods outlive their grace period.
    """
    there = kube.delete_job(release)
    if there and not wait_until(lambda: kube.job(release) is None, ENDING_S):
        fault = f"its pods have not ended within {ENDING_S / 60:.0f} minutes"
        raise StoreUnavailable(f"job {release}", fault, "are their nodes still there?")
    try:
        helm("status", release, *_place(kube))
        helm("uninstall", release, "--ignore-not-found", *_place(kube))
    except SpecInvalid as error:
        if "not found" in error.fault:  # never there, or removed by somebody else just now
            return there
        raise
    return True


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_S)
    return True


def releases(run: str) -> list[str]:
    """Names of all releases that a run may have; the conductor first, so that it starts no more."""
    return [release_name(run, CONDUCTOR), *(release_name(run, stage) for stage in STAGES)]


def _place(kube: Kube) -> tuple[str, ...]:
    """Where helm works: where we do."""
    context = ("--kube-context", kube.context) if kube.from_kubeconfig else ()
    return ("--namespace", kube.namespace, *context)
