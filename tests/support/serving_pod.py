"""What surrounds a server in a pod: the mounted ConfigMap, its task, and what it says of itself."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import Serving, started

from thinktune.schema.keys import stage_prefix
from thinktune.schema.serve import ServeTask, ServeTimes
from thinktune.schema.served import Desired, DesiredRun
from thinktune.store import manifest_digest, open_store, read_manifest

SERVER = "shop"


class Pod:
    """What a kubelet does for a pod: it swaps the folder that a ConfigMap is mounted as."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self.store = store
        self.file = folder / "adapters" / "served.json"
        self.revision = 0

    def desire(self, *runs: str, **digests: str) -> None:
        """Another state. `digests`: of adapters' manifests, where those are to be wrong."""
        self.revision += 1
        desired = Desired(
            revision=self.revision,
            runs=tuple(
                DesiredRun(
                    run=run, train_sha256=digests.get(run) or self.digest(run), unpromoted=True
                )
                for run in runs
            ),
        )
        made = self._folder / f"..{self.revision}"
        made.mkdir()
        (made / "served.json").write_text(desired.canonical())
        link = self._folder / "..data"
        link.symlink_to(made.name)
        link.replace(self._folder / "adapters")

    def digest(self, run: str) -> str:
        manifest = read_manifest(open_store(self.store), stage_prefix(run, "train"))
        assert manifest is not None
        return manifest_digest(manifest)

    def state(self) -> dict[str, object]:
        """What the replica says of itself."""
        store = open_store(self.store)
        found = [json.loads(store.get(info.key)) for info in store.list(f"servers/{SERVER}")]
        return dict(found[0]) if found else {}

    def wait_for_state(self, **wanted: object) -> dict[str, object]:
        deadline = time.monotonic() + 90
        while True:
            state = self.state()
            if all(state.get(name) == value for name, value in wanted.items()):
                return state
            assert time.monotonic() < deadline, (state, wanted)
            time.sleep(0.1)


@contextmanager
def serving_pod(
    folder: Path, pod: Pod, engine: str, *, up_s: float, **more: str
) -> Iterator[Serving]:
    """The pod's server while the block runs."""
    task = ServeTask(
        run=SERVER,
        store=pod.store,
        port=0,
        engine=engine,  # type: ignore[arg-type]
        window=512,
        server=SERVER,
        desired_file=str(pod.file),
        adapters=2,
        times=ServeTimes(grace_s=10),
    )
    path = folder / "task.json"
    path.write_text(task.canonical())
    command = [sys.executable, "-m", "thinktune.tasks.serve", "--task", str(path)]
    with started(folder, command, up_s=up_s, POD_NAME="shop-0", TMPDIR=str(folder), **more) as made:
        yield made


def models(running: Serving) -> dict[str, str | None]:
    """Names of models, and the run behind the server's own."""
    status, found = running.request("GET", "/v1/models")
    assert status == 200
    return {each["id"]: each["thinktune"].get("run") for each in found["data"]}
