"""The whole log of a stage: of pods that are there from the cluster, of others from the store."""

from collections.abc import Iterator

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.status.observed import Observed
from thinktune.schema.errors import ThinktuneError
from thinktune.schema.keys import logs_prefix
from thinktune.store import ObjectMissing, Store


def stored_lines(seen: Observed, kube: Kube, store: Store) -> Iterator[str]:
    """Lines of all pods of the stage, those that ended first before the others."""
    prefix = logs_prefix(seen.run, seen.stage)
    alive = {pod["metadata"]["name"] for pod in seen.pods}
    ended = [termination.pod for termination in seen.terminations]
    order = [*ended, *(name for name in seen.logged if name not in ended)]
    for name in order:
        if name not in alive:
            yield from _from_store(store, f"{prefix}/{name}.log")
    for pod in reversed(seen.pods):
        name = pod["metadata"]["name"]
        try:
            yield from kube.log(name)
        except ThinktuneError:
            yield from _from_store(store, f"{prefix}/{name}.log")


def _from_store(store: Store, key: str) -> Iterator[str]:
    try:
        yield from store.get(key).decode(errors="replace").splitlines()
    except ObjectMissing:
        return
