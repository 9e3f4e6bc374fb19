"""Ends a run's Jobs, which commit what they can first; or removes the run altogether."""

import time
from collections.abc import Callable

from thinktune.launch.install import releases, running_pods, uninstall
from thinktune.launch.kube import Kube
from thinktune.launch.observed import observe_all
from thinktune.spec.errors import InputMissing
from thinktune.spec.keys import checkpoints_prefix
from thinktune.store import Store

LOOK_S = 1.0

Say = Callable[[str], None]


def cancel(run: str, kube: Kube, store: Store, say: Say) -> bool:
    """Ends everything of the run in the cluster and waits for it; False: nothing was there.

    Raises InputMissing where nobody knows the run.
    """
    seen = observe_all(run, kube, store)
    found = [release for release in releases(run) if uninstall(release, kube.namespace)]
    for release in found:
        say(f"{release}: removed")
    waited = False
    while pods := running_pods(kube, run):
        if not waited:
            say(f"waits for {', '.join(pods)} to commit and end")
            waited = True
        time.sleep(LOOK_S)
    for each in seen:
        if each.state == "done":
            say(f"{each.stage}: done, kept")
    step = _last_checkpoint(run, store)
    if step and seen[1].manifest is None:
        say(f"train: checkpoint of step {step} kept; the same submit goes on from there")
    return bool(found)


def delete(run: str, kube: Kube | None, store: Store, say: Say) -> None:
    """The run's Jobs and all that it has in the store; models and datasets in the cache stay.

    Raises InputMissing where nobody knows the run.
    """
    if kube is not None:
        cancel(run, kube, store, say)
    prefix = f"runs/{run}"
    size = sum(info.size for info in store.list(prefix))
    if kube is None and size == 0:
        raise InputMissing(
            store.place(prefix), "there is no such run", "`thinktune status` lists runs"
        )
    store.delete_prefix(prefix)
    say(f"{store.place(prefix)}: {size / 1e6:,.1f} MB removed")


def _last_checkpoint(run: str, store: Store) -> int:
    prefix = checkpoints_prefix(run)
    keys = [info.key for info in store.list(prefix)]
    steps = [key.split("/")[-2] for key in keys if key.endswith("/manifest.json")]
    return max((int(step.removeprefix("step-")) for step in steps), default=0)
