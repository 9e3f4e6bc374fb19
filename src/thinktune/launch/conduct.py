"""Starts the stages of a run in turn and watches each to its end.

The launcher runs it at the terminal (`submit --follow`), and the conductor's Job in the cluster
(`submit --detach`: `python -m thinktune.launch.conduct FILE`); either may be stopped and started
again at any moment, for all that it knows is in the cluster and the store. Needs the right to read
and patch Jobs and to read pods and events (with logs, those too), in one namespace.
"""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from thinktune.launch.kube import QUEUE, QUEUE_LABEL, WAITS, Forbidden, Kube
from thinktune.launch.observed import Observed, observe
from thinktune.launch.pod_signs import Explanation
from thinktune.launch.tail import Tail
from thinktune.launch.why import look
from thinktune.spec.closed import parse_yaml
from thinktune.spec.conduct import Conduct, ConductedStage
from thinktune.spec.errors import InputMissing, StageFailed, StoreUnavailable, ThinktuneError
from thinktune.spec.exit_codes import ExitCode
from thinktune.spec.task import Stage
from thinktune.store import Store, open_store

LOOK_S = 1.0
GONE_S = 5.0
"""How long a Job may be away: `submit` replaces one that failed."""
REPEAT_S = 60.0
PATIENCE_S = 600.0
"""The conductor's, with a registry that is busy or a secret that is still to be made."""
UNREACHABLE_S = 600.0
"""How long API or store may be down before we give up."""

Say = Callable[[str], None]


def conduct(
    plan: Conduct,
    kube: Kube,
    store: Store,
    say: Say,
    *,
    logs: bool = False,
    patience_s: float = 0.0,
) -> None:
    """Until the last stage is committed. With `logs`, says what the pods say; `patience_s` is how
    long a pod may be unable to start before that is taken for a failure.

    Raises StageFailed, StoreUnavailable after ten minutes without API or store.
    """
    for each in plan.stages:
        tail = Tail(kube, say) if logs else None
        try:
            _watch(_Watch(plan, each, kube, store, say, patience_s), tail)
        finally:
            if tail is not None:
                tail.close()


class _Watch:
    """One stage under observation."""

    def __init__(
        self,
        plan: Conduct,
        each: ConductedStage,
        kube: Kube,
        store: Store,
        say: Say,
        patience_s: float,
    ) -> None:
        self.plan, self.each, self._kube, self._store, self._say = plan, each, kube, store, say
        self._patience_s = patience_s
        self._said: tuple[str, float] = ("", 0.0)
        self._since: dict[str, float] = {}
        self._before: Observed | None = None

    def look(self) -> tuple[Observed | None, bool]:
        """The stage as it is, and whether it is done; starts it where it waits for us.

        Nothing while API or store do not answer. Raises StageFailed.
        """
        try:
            seen = self._observe()
            done = self._judge(seen)
        except StoreUnavailable as error:
            # A token that is being renewed is refused for a moment; one that never worked is not.
            if isinstance(error, Forbidden) and self._before is None:
                raise
            if self._for_longer_than("unreachable", UNREACHABLE_S):
                raise
            self.remark(f"{error}; tries again")
            return None, False
        self._since.pop("unreachable", None)
        self._before = seen
        return seen, done

    def _observe(self) -> Observed:
        return observe(self.plan.run, self.each.stage, self._kube, self._store, self._before)

    def _judge(self, seen: Observed) -> bool:
        stage = self.each.stage
        if seen.manifest is not None:
            if seen.manifest.task_sha256 != self.each.task_sha256:
                fault = f"the artifact of {stage} was made by another task"
                raise InputMissing(f"run {self.plan.run}", fault, "take another --run name")
            return True
        if seen.state == "waiting":
            self._start(seen)
            return False
        why = look(seen, self._kube)
        if seen.state in ("absent", "stopped"):
            if self._for_longer_than("gone", GONE_S):
                raise _failed(stage, why)
            return False
        self._since.pop("gone", None)
        if seen.state == "running":
            self._since.pop("hopeless", None)  # not where kubelet tries again: it fails in two ways
        elif (
            why.hopeless
            and (seen.state == "failed" or self._for_longer_than("hopeless", self._patience_s))
            and self._observe().manifest is None  # the Job may have ended well since we looked
        ):
            raise _failed(stage, why)
        if seen.state == "pending":
            self.remark(f"{stage}: {why.paragraph()}")
        return False

    def _for_longer_than(self, what: str, seconds: float) -> bool:
        began = self._since.setdefault(what, time.monotonic())
        return time.monotonic() - began >= seconds

    def _start(self, seen: Observed) -> None:
        """Takes the brake off a Job that waits for the stage before it."""
        assert seen.job is not None
        annotations = seen.job["metadata"].get("annotations") or {}
        labels = seen.job["metadata"].get("labels") or {}
        if WAITS not in annotations or QUEUE_LABEL in labels:
            # Somebody else holds it: a queue, a person.
            self.remark(f"{self.each.stage}: {look(seen, self._kube).paragraph()}")
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
        self._kube.patch_job(seen.release, patch)
        self._say(f"{self.each.stage}: {'queued' if queue else 'started'}")

    def remark(self, text: str) -> None:
        """Once, and again after a minute."""
        now = time.monotonic()
        if text != self._said[0] or now - self._said[1] > REPEAT_S:
            self._said = (text, now)
            self._say(text)


def _failed(stage: Stage, why: Explanation) -> StageFailed:
    return StageFailed(f"{stage}: {why.paragraph()}", why.code or int(ExitCode.INTERNAL))


def _watch(watch: _Watch, tail: Tail | None) -> None:
    stage = watch.each.stage
    first = True
    while True:
        seen, done = watch.look()
        if seen is not None:
            if tail is not None and not (done and first):
                tail.follow(seen.pods)
            if done:
                if tail is not None:
                    tail.drain()
                watch.remark(f"{stage}: {'done already' if first else 'committed'}")
                return
            first = False
        time.sleep(LOOK_S)


def main(path: Path) -> int:
    """The conductor's Job."""
    plan = Conduct.parse(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(int(ExitCode.PREEMPTED))

    signal.signal(signal.SIGTERM, stop)
    try:
        kube, store = Kube(plan.namespace), open_store(plan.store)
        conduct(plan, kube, store, _print, patience_s=PATIENCE_S)
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
