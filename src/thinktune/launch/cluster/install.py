"""Helm releases of a run: one per stage, installed once, and one for its conductor.

A name alone proves nothing: what another run or somebody else has under it is never touched.
Called by `submit`, `cancel` and `delete`.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.charts import chart_folder, helm, release_name
from thinktune.launch.cluster.kube import INSTANCE_LABEL, RUN_LABEL, Kube
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.stages import STAGES

CONDUCTOR = "conductor"
POLL_S = 1.0
APPEARS_S = 10.0
"""How long after its release another submit's Job may appear."""
TERMINATION_S = 2100.0
"""How long a Job that is being stopped may take: its pods' grace period, and a margin."""
TAKEN = ("cannot re-use a name", "cannot reuse a name", "already exists", "in progress")
"""What helm says where another submit was first."""
WITHOUT_HELM = ("cannot be imported", "invalid ownership metadata")
"""What helm says where `kubectl apply` was first."""


class Foreign(SpecInvalid):
    """A name that we would need is somebody else's."""


def install(release: str, chart: str, kube: Kube, values: str) -> str | None:
    """Installs a release; where the name is taken, what helm says of that. Raises what `helm`
    raises otherwise."""
    folder = str(chart_folder(chart))
    try:
        helm("install", release, folder, "--values", "-", *_place(kube), stdin=values)
    except SpecInvalid as error:
        if any(words in error.fault for words in (*TAKEN, *WITHOUT_HELM)):
            return error.fault
        raise
    return None


def installed_values(release: str, kube: Kube) -> dict[str, Any] | None:
    """The values that a release was installed with; None where there is none."""
    try:
        text = helm("get", "values", release, "--output", "json", *_place(kube))
    except SpecInvalid as error:
        if "not found" in error.fault:
            return None
        raise
    return dict(json.loads(text) or {})


def check_ours(release: str, run: str, kube: Kube) -> bool:
    """Whether there is a Helm release of that name. Raises Foreign where it, or the Job of that
    name, is not of this run."""
    job = kube.job(release)
    labels = (job or {}).get("metadata", {}).get("labels") or {}
    values = installed_values(release, kube)
    if (job is not None and labels.get(RUN_LABEL) != run) or (
        values is not None and values.get("run") != run
    ):
        owner = labels.get(RUN_LABEL) or (values or {}).get("run")
        fault = f"that name is taken by {f'run {owner}' if owner else 'something else'}"
        raise Foreign(f"release {release}", fault, "take another name with --run")
    return values is not None


def uninstall(release: str, run: str, kube: Kube) -> bool:
    """Removes a Job, waits until its pods have had their grace period, and then removes the rest of
    its release: what opens the store to them goes last. False: there was none.

    Raises Foreign where it is not this run's, ServiceUnavailable where pods outlive their grace
    period.
    """
    check_ours(release, run, kube)
    job = kube.job(release)
    if job is not None:
        delete_job(job, kube)
    return clear(release, run, kube) or job is not None


def delete_job(job: Object, kube: Kube) -> None:
    """That very Job, to the end of its pods."""
    kube.delete_job(job["metadata"]["name"], uid=job["metadata"]["uid"])
    await_gone(job, kube)


def clear(release: str, run: str, kube: Kube) -> bool:
    """Removes what a release has beside its Job; nothing where a Job is there. False: there was
    none. Raises Foreign."""
    is_release = check_ours(release, run, kube)
    if kube.job(release) is not None:
        return False
    if is_release:
        helm("uninstall", release, "--ignore-not-found", *_place(kube))
        return True
    # What `kubectl apply` made of rendered manifests.
    return bool(kube.delete_owned(f"{INSTANCE_LABEL}={release},{RUN_LABEL}={run}"))


def clear_leftovers(release: str, run: str, kube: Kube, words: str) -> None:
    """What an expired Job left behind under a name, once no other submit's Job has appeared.

    Raises Foreign, with helm's words, where something there is not ours.
    """
    if wait_until(lambda: kube.job(release) is not None, APPEARS_S):
        check_ours(release, run, kube)
    elif not clear(release, run, kube) and any(each in words for each in WITHOUT_HELM):
        raise Foreign(f"release {release}", words, "take another name with --run")


def await_gone(job: Object, kube: Kube) -> None:
    """Until that very Job, which is being deleted, is gone. Raises ServiceUnavailable."""
    name = job["metadata"]["name"]
    if not wait_until(lambda: not is_there(job, kube), TERMINATION_S):
        fault = f"its pods have not ended within {TERMINATION_S / 60:.0f} minutes"
        raise ServiceUnavailable(f"job {name}", fault, "are their nodes still there?")


def is_there(job: Object, kube: Kube) -> bool:
    """Whether that very Job is still there, and not another of its name."""
    now = kube.job(job["metadata"]["name"])
    return now is not None and now["metadata"]["uid"] == job["metadata"]["uid"]


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


def releases(run: str) -> list[str]:
    """Names of all releases that a run may have; the conductor first, so that it starts no more."""
    return [release_name(run, CONDUCTOR), *(release_name(run, stage) for stage in STAGES)]


def _place(kube: Kube) -> tuple[str, ...]:
    """Where helm works: where we do."""
    context = ("--kube-context", kube.context) if kube.from_kubeconfig else ()
    return ("--namespace", kube.namespace, *context)
