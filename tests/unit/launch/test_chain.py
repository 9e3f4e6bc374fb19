"""The stages of a run together: which one matters, what was replaced, who starts the rest."""

from typing import Any

import pytest
from launching import depends
from observed_objects import failed, job, manifest, pod, waiting_job

from thinktune.launch.status.chain import abandoned, broken_chain, first_that_matters
from thinktune.launch.status.observed import Observed
from thinktune.schema.stages import STAGES, Stage


def test_a_stage_made_from_what_is_there_no_more() -> None:
    prep = manifest("prep", {})
    whole = manifest("train", {"prep": prep.digest()})
    other = manifest("train", {"prep": "1" * 64})
    first = Observed("r", "prep", manifest=prep)
    assert broken_chain([first, Observed("r", "train", manifest=whole)], STAGES) is None
    broken = [first, Observed("r", "train", manifest=other)]
    assert broken_chain(broken, ["prep"]) is None
    found = broken_chain(broken, STAGES)
    assert found is not None
    assert "is another one now" in found.cause
    gone = broken_chain([Observed("r", "train", manifest=whole)], STAGES)
    assert gone is not None
    assert "is gone" in gone.cause


def test_a_conductor_that_does_not_start() -> None:
    held = waiting_job()
    stages = [Observed("r", "prep", manifest=manifest("prep", {})), Observed("r", "train", held)]
    status = {"name": "task", "image": "i:9", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    found = abandoned(stages, job(), [pod(containerStatuses=[status])])
    assert found is not None
    assert "its conductor does not start. The image i:9 cannot be pulled" in found.cause
    assert found.code == 66
    assert abandoned(stages, job(), [pod("Running")]) is None
    alone = abandoned(stages, None, [])
    assert alone is not None
    assert "it has no conductor" in alone.cause


@pytest.mark.parametrize(
    ("states", "at"),
    [
        (("done", "failed", "absent"), "train"),
        (("done", "running", "waiting"), "train"),
        (("done", "waiting", "waiting"), "train"),
        (("done", "done", "absent"), "evaluate"),
        (("done", "done", "done"), "evaluate"),
    ],
)
def test_where_a_run_is(states: tuple[str, ...], at: str) -> None:
    def seen(stage: Stage, state: str) -> Observed:
        if state == "done":
            return Observed("r", stage, manifest=manifest(stage, {}))
        objects: dict[str, Any] = {
            "absent": None,
            "failed": failed("BackoffLimitExceeded", "too often"),
            "running": job(active=1),
            "waiting": job() | {"spec": {"suspend": True}},
        }
        pods = [pod("Running")] if state == "running" else []
        return Observed("r", stage, objects[state], pods)

    order: tuple[Stage, ...] = ("prep", "train", "evaluate")
    stages = [seen(stage, state) for stage, state in zip(order, states, strict=True)]
    assert [each.state for each in stages] == list(states)
    assert first_that_matters(stages).stage == at


def test_a_conductor_that_finds_no_node_and_one_that_ended() -> None:
    held = waiting_job()
    stages = [Observed("r", "prep", manifest=manifest("prep", {})), Observed("r", "train", held)]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    no_node = pod(conditions=[condition | {"message": "0/1 nodes"}])
    found = abandoned(stages, job(), [no_node])
    assert found is not None and "its conductor finds no node" in found.cause
    ended = abandoned(stages, failed("PodFailurePolicy", "prep failed"), [])
    assert ended is not None and "its conductor has ended" in ended.cause
    assert ended.evidence == ("prep failed",)


def test_who_waits_for_what_it_depends_on_and_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prep = Observed("r", "prep", manifest=manifest("prep", {}))
    at_work = Observed("r", "train", job(active=1), [pod("Running")])
    gone, held = Observed("r", "train"), Observed("r", "evaluate", waiting_job())
    assert abandoned([prep, gone, held], None, []) is None
    depends(monkeypatch, "evaluate", "prep")
    assert abandoned([prep, at_work, held], None, []) is None
    found = abandoned([prep, gone, held], None, [])
    assert found is not None
    assert found.cause == "evaluate waits although prep is committed: it has no conductor"
