"""Starts the stages of a run in turn and watches each to its end.

The launcher runs it at the terminal (`submit --follow`), and the conductor's Job in the cluster
(`submit --detach`: `python -m thinktune.launch.conductor FILE`); either may be stopped and started
again at any moment, for all that it knows is in the cluster and the store. Needs the right to read
and patch Jobs and to read pods and events (with logs, those too), in one namespace.
"""

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from thinktune.launch.cluster.kube import QUEUE, QUEUE_LABEL, WAITS, Kube
from thinktune.launch.status.observed import Observed
from thinktune.launch.status.pod_status import Diagnosis
from thinktune.launch.status.tail import Tail
from thinktune.launch.status.watch import POLL_S, Say, Watch
from thinktune.launch.status.why import look
from thinktune.schema.closed import parse_yaml
from thinktune.schema.errors import InputMissing, StageFailed, ThinktuneError
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.manifest import Manifest
from thinktune.schema.pipeline import Pipeline, PipelineStage
from thinktune.store import Store, open_store

GONE_S = 5.0
"""How long a Job may be away: `submit` replaces one that failed."""
PATIENCE_S = 600.0
"""How long the conductor tolerates a registry that is slow or a secret that is still to be made."""


def run_pipeline(
    plan: Pipeline,
    kube: Kube,
    store: Store,
    say: Say,
    *,
    logs: bool = False,
    patience_s: float = 0.0,
) -> None:
    """Until the last stage is committed. With `logs`, says what the pods say; `patience_s` is how
    long a pod may be unable to start before that is taken for a failure.

    Raises StageFailed, ServiceUnavailable after ten minutes without API or store.
    """
    for each in plan.stages:
        tail = Tail(kube, say) if logs else None
        watch = Watch(plan.run, each.stage, kube, store, say, each.beside)
        try:
            _follow_stage(_Stage(each, watch, patience_s), tail)
        finally:
            if tail is not None:
                tail.close()


class _Stage:
    """One stage on its way to its artifact."""

    def __init__(self, each: PipelineStage, watch: Watch, patience_s: float) -> None:
        self._each = each
        self.watch = watch
        self._patience_s = patience_s

    def look(self) -> Observed:
        """The stage as it is; starts it where it waits for us. Raises StageFailed."""
        seen = self.watch.observe()
        if seen.manifest is not None:
            self._check_artifact(seen.manifest)
        elif seen.state == "waiting":
            self._start(seen)
        else:
            self._judge(seen)
        return seen

    def _check_artifact(self, manifest: Manifest) -> None:
        if manifest.task_sha256 != self._each.task_sha256:
            fault = f"the artifact of {self._each.stage} was made by another task"
            raise InputMissing(f"run {self.watch.run}", fault, "take another --run name")

    def _judge(self, seen: Observed) -> None:
        watch, why = self.watch, look(seen, self.watch.kube)
        if seen.state in ("absent", "stopped"):
            if watch.for_longer_than("gone", GONE_S):
                raise _failed(seen, why)
            return
        watch.no_longer("gone")
        if seen.state == "running":
            watch.no_longer("hopeless")  # not where kubelet tries again: it fails in two ways
        elif (
            why.hopeless
            and (seen.state == "failed" or watch.for_longer_than("hopeless", self._patience_s))
            and watch.observe().manifest is None  # the Job may have ended well since we looked
        ):
            raise _failed(seen, why)
        if seen.state == "pending":
            watch.remark(f"{seen.stage}: {why.paragraph()}")

    def _start(self, seen: Observed) -> None:
        """Starts a Job that waits for the stage before it, or hands it to its queue."""
        assert seen.job is not None
        annotations = seen.job["metadata"].get("annotations") or {}
        labels = seen.job["metadata"].get("labels") or {}
        if WAITS not in annotations or QUEUE_LABEL in labels:
            # Somebody else holds it: a queue, a person.
            self.watch.remark(f"{seen.stage}: {look(seen, self.watch.kube).paragraph()}")
            return
        queue = annotations.get(QUEUE)
        # With a queue, Kueue takes the Job from here on and starts it when there is room.
        # The mark goes: who suspends the Job later on means it.
        started = {"annotations": {WAITS: None}}
        if queue:
            started["labels"] = {QUEUE_LABEL: queue}
        patch = (
            {"metadata": started} if queue else {"metadata": started, "spec": {"suspend": False}}
        )
        self.watch.kube.patch_job(seen.release, patch)
        self.watch.say(f"{seen.stage}: {'queued' if queue else 'started'}")


class _Failed(StageFailed):
    """A stage failed; `seen` is the stage as it was then, whose last lines may still be wanted."""

    def __init__(self, seen: Observed, text: str, code: int) -> None:
        super().__init__(text, code)
        self.seen = seen


def _failed(seen: Observed, why: Diagnosis) -> _Failed:
    return _Failed(seen, f"{seen.stage}: {why.paragraph()}", why.code or int(ExitCode.INTERNAL))


def _follow_stage(stage: _Stage, tail: Tail | None) -> None:
    watch, first = stage.watch, True
    while True:
        try:
            seen = watch.attempt(stage.look)
        except _Failed as failed:
            _say_rest(tail, failed.seen)
            raise
        if seen is not None and seen.manifest is not None:
            if not first:
                _say_rest(tail, seen)
            watch.remark(f"{watch.stage}: {'done already' if first else 'committed'}")
            return
        if seen is not None:
            if tail is not None:
                tail.follow(seen.pods)
            first = False
        time.sleep(POLL_S)


def _say_rest(tail: Tail | None, seen: Observed) -> None:
    if tail is not None:
        tail.follow(seen.pods)
        tail.drain()


def main(path: Path) -> int:
    """What the conductor's Job runs; gives its exit code."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(int(ExitCode.PREEMPTED))

    signal.signal(signal.SIGTERM, stop)
    try:
        plan = Pipeline.parse(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
        kube, store = Kube(plan.namespace), open_store(plan.store)
        run_pipeline(plan, kube, store, _print, patience_s=PATIENCE_S)
    except StageFailed as ended:
        _print(f"error: {ended}")
        # One code for all: what the stage's own would have this Job do is not what is wanted.
        return int(ExitCode.INPUT_MISSING)
    except ThinktuneError as error:
        _print(f"error: {error}")
        return error.exit_code
    return int(ExitCode.DONE)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the conductor's log


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
