"""A stage that is watched while API or store are away."""

from pathlib import Path

import pytest

from thinktune.launch.cluster.api import Forbidden
from thinktune.launch.status import watch as module
from thinktune.launch.status.observed import Observed
from thinktune.launch.status.watch import Watch
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.pipeline import Pipeline, PipelineStage
from thinktune.schema.stages import Stage
from thinktune.store import open_store

SEEN = Observed("r", "train")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def watch(said: list[str], tmp_path: Path) -> Watch:
    """What it looks at is given by each test: it asks no API here."""
    store = open_store(f"file://{tmp_path}")
    return Watch("r", "train", None, store, said.append)  # type: ignore[arg-type]


def refused() -> Observed:
    raise Forbidden("namespace jobs", "you may not", "ask for a role")


def away() -> Observed:
    raise ServiceUnavailable("s3://b", "does not answer", "check the network")


def test_who_was_never_let_in_is_told_at_once(watch: Watch) -> None:
    with pytest.raises(Forbidden):
        watch.attempt(refused)


def test_a_refusal_after_an_answer_is_taken_for_a_passing_one(
    watch: Watch, said: list[str]
) -> None:
    assert watch.attempt(lambda: SEEN) is SEEN
    assert watch.attempt(refused) is None
    assert watch.attempt(refused) is None
    assert said == ["namespace jobs: you may not; ask for a role; tries again"]  # once
    assert watch.attempt(lambda: SEEN) is SEEN


def test_an_outage_ends_the_watch_after_a_while(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.attempt(away) is None
    monkeypatch.setattr(module, "UNREACHABLE_S", 0.0)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        watch.attempt(away)


def test_an_answer_in_between_makes_a_new_outage_of_it(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.attempt(away) is None
    assert watch.attempt(lambda: SEEN) is SEEN
    monkeypatch.setattr(module, "UNREACHABLE_S", 0.05)
    assert watch.attempt(away) is None


def pipeline_with(digest: str, *stages: Stage) -> Pipeline:
    each = (
        PipelineStage(stage=stage, release=f"r-{stage}", task_sha256=digest * 64)
        for stage in stages
    )
    return Pipeline(run="r", store="s3://b", namespace="jobs", stages=tuple(each))


def test_what_a_conductor_was_told_before_is_kept() -> None:
    before, now = pipeline_with("0", "train", "evaluate"), pipeline_with("1", "prep", "train")
    joined = now.joined(before)
    assert [each.stage for each in joined.stages] == ["prep", "train", "evaluate"]
    assert [each.task_sha256[0] for each in joined.stages] == ["1", "1", "0"]
    assert now.joined(None) == now
