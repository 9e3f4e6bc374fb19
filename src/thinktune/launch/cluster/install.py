"""Helm releases of a run: one per stage, installed once, and one for its conductor.

A name alone proves nothing: what another run or somebody else has under it is never touched.
Called by `submit`, `cancel` and `delete`.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.charts import HelmFault, HelmRefused, chart_folder, helm, release_name
from thinktune.launch.cluster.kube import INSTANCE_LABEL, RUN_LABEL, Kube
from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.stages import STAGES

CONDUCTOR = "conductor"
HISTORY = 5
"""Revisions of a server's release that Helm keeps."""
POLL_S = 1.0
APPEARS_S = 10.0
"""How long after its release another submit's Job may appear."""
TERMINATION_S = 2100.0
"""How long a Job that is being stopped may take: its pods' grace period, and a margin."""


class Foreign(SpecInvalid):
    """A name that we would need is somebody else's."""


def install(release: str, chart: str, kube: Kube, values: str) -> HelmRefused | None:
    """Installs a release; gives helm's refusal where something of that name is there already.
    Raises what `helm` raises otherwise."""
    folder = str(chart_folder(chart))
    try:
        options = ("--values", "-", *_helm_options(kube))
        helm("install", release, folder, *options, chosen=(release, folder), stdin=values)
    except HelmRefused as refusal:
        if refusal.why in (HelmFault.NAME_TAKEN, HelmFault.MADE_WITHOUT_HELM):
            return refusal
        raise
    return None


def upgrade(release: str, chart: str, kube: Kube, values: str) -> None:
    """Changes a release. Raises ServiceUnavailable where another helm is at it, and what `helm`
    raises otherwise."""
    folder = str(chart_folder(chart))
    options = ("--values", "-", "--history-max", str(HISTORY), *_helm_options(kube))
    try:
        helm("upgrade", release, folder, *options, chosen=(release, folder), stdin=values)
    except HelmRefused as refusal:
        if refusal.why is HelmFault.NAME_TAKEN:
            remedy = "wait until it is done, or `helm rollback` what was interrupted"
            raise ServiceUnavailable(f"release {release}", refusal.fault, remedy) from None
        raise


def uninstall_release(release: str, kube: Kube) -> None:
    """Removes all that a release has made."""
    options = ("--ignore-not-found", *_helm_options(kube))
    helm("uninstall", release, *options, chosen=(release,))


def installed_values(release: str, kube: Kube) -> dict[str, Any] | None:
    """The values that a release was installed with; None where there is none."""
    try:
        options = ("--output", "json", *_helm_options(kube))
        text = helm("get", "values", release, *options, chosen=(release,))
    except HelmRefused as refusal:
        if refusal.why is HelmFault.NO_RELEASE:
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
    job = kube.job(release)
    if job is not None:
        check_ours(release, run, kube)
        delete_job(job, kube)
    return clear(release, run, kube) or job is not None


def delete_job(job: Object, kube: Kube) -> None:
    """Deletes that very Job, and waits until its pods have ended. Raises ServiceUnavailable."""
    kube.delete_job(job["metadata"]["name"], uid=job["metadata"]["uid"])
    await_gone(job, kube)


def clear(release: str, run: str, kube: Kube) -> bool:
    """Removes what a release has beside its Job; nothing where a Job is there. False: there was
    none. Raises Foreign."""
    is_release = check_ours(release, run, kube)
    if kube.job(release) is not None:
        return False
    if is_release:
        uninstall_release(release, kube)
        return True
    # What `kubectl apply` made of rendered manifests.
    return bool(kube.delete_owned(f"{INSTANCE_LABEL}={release},{RUN_LABEL}={run}"))


def clear_leftovers(release: str, run: str, kube: Kube, refusal: HelmRefused) -> None:
    """What an expired Job left behind under a name, once no other submit's Job has appeared.

    Raises Foreign, with what helm said, where something there is not ours.
    """
    if wait_until(lambda: kube.job(release) is not None, APPEARS_S):
        check_ours(release, run, kube)
    elif not clear(release, run, kube) and refusal.why is HelmFault.MADE_WITHOUT_HELM:
        raise Foreign(f"release {release}", refusal.fault, "take another name with --run")


def not_installed(release: str, tries: int, refusal: HelmRefused | None) -> ServiceUnavailable:
    """The error of a release that others make and remove as often as we try."""
    fault = f"it could not be installed after {tries} attempts"
    if refusal is not None:
        fault += f": {refusal.fault}"
    return ServiceUnavailable(f"release {release}", fault, "submit again")


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


def _helm_options(kube: Kube) -> tuple[str, ...]:
    """The options that make helm work where the client does."""
    context = ("--kube-context", kube.context) if kube.from_kubeconfig else ()
    return ("--namespace", kube.namespace, *context)
