"""Ends a run's Jobs, which commit what they can first; or removes the run altogether."""

import contextlib
import time

from thinktune.launch.cluster.install import POLL_S, Foreign, releases, uninstall
from thinktune.launch.cluster.kube import INSTANCE_LABEL, RUN_LABEL, Kube
from thinktune.launch.status.observed import observe_all
from thinktune.launch.status.watch import Say
from thinktune.schema.errors import InputMissing, ServiceUnavailable
from thinktune.schema.keys import checkpoints_prefix
from thinktune.store import Store

MARGIN_S = 60.0


def cancel(run: str, kube: Kube, store: Store, say: Say) -> bool:
    """Ends everything of the run in the cluster and waits for it; False: nothing was there.

    Needs no store where there are Jobs. Raises InputMissing where nobody knows the run,
    ServiceUnavailable where pods outlive their grace period.
    """
    jobs = kube.jobs(f"{RUN_LABEL}={run}")
    if not jobs:
        observe_all(run, kube, store)
    _wait_is_told(run, kube, say)
    found = _remove_all(run, kube, say)
    _await_pods(run, kube)
    try:
        _say_kept(run, kube, store, say)
    except (InputMissing, ServiceUnavailable) as error:
        say(f"what is kept cannot be told: {error}")
    return found


def _remove_all(run: str, kube: Kube, say: Say) -> bool:
    """Under the launcher's names, and under those that somebody else chose."""
    found = False
    names = [job["metadata"]["labels"][INSTANCE_LABEL] for job in kube.jobs(f"{RUN_LABEL}={run}")]
    for release in dict.fromkeys([*releases(run), *names]):
        with contextlib.suppress(Foreign):  # of another run whose name ends alike
            if uninstall(release, run, kube):
                say(f"{release}: removed")
                found = True
    return found


def delete(run: str, kube: Kube, store: Store, say: Say) -> None:
    """The run's Jobs and its artifacts, logs and checkpoints. What runs share stays: models and
    datasets in the cache, the user's own files under `sources`.

    Raises InputMissing where nobody knows the run.
    """
    cancel(run, kube, store, say)
    prefix = f"runs/{run}"
    size = sum(info.size for info in store.list(prefix))
    store.delete_prefix(prefix)
    store.abort_uploads(prefix, 0)
    say(f"{store.location(prefix)}: {size / 1e6:,.1f} MB removed")


def _wait_is_told(run: str, kube: Kube, say: Say) -> None:
    alive = _alive(run, kube)
    if alive:
        say(f"waits for {', '.join(alive)} to commit and end")


def _alive(run: str, kube: Kube) -> dict[str, float]:
    """Pods that have not ended, with their grace periods in seconds."""
    return {
        pod["metadata"]["name"]: float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        for pod in kube.pods(f"{RUN_LABEL}={run}")
        if pod["status"].get("phase") in ("Pending", "Running")
    }


def _await_pods(run: str, kube: Kube) -> None:
    began = time.monotonic()
    while alive := _alive(run, kube):
        if time.monotonic() - began > max(alive.values()) + MARGIN_S:
            fault = f"pods outlive their grace period: {', '.join(alive)}"
            raise ServiceUnavailable(
                f"run {run}", fault, "is their node still there? kubectl get nodes"
            )
        time.sleep(POLL_S)


def _say_kept(run: str, kube: Kube, store: Store, say: Say) -> None:
    stages = observe_all(run, kube, store)
    for each in stages:
        if each.state == "done":
            say(f"{each.stage}: done, kept")
    keys = [info.key for info in store.list(checkpoints_prefix(run))]
    steps = [key.split("/")[-2] for key in keys if key.endswith("/manifest.json")]
    step = max((int(step.removeprefix("step-")) for step in steps), default=0)
    if step and all(each.manifest is None for each in stages if each.stage == "train"):
        say(f"train: checkpoint of step {step} kept; the same submit goes on from there")
