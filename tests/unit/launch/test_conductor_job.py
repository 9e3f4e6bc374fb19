"""The conductor as a Job in the cluster: its file, its exit code and its end on a signal."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_cluster import Cluster
from launching import commit_stage

from thinktune.launch import conductor
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.conductor import main
from thinktune.launch.preflight import Request
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import STAGES
from thinktune.store import Store


@pytest.fixture
def told(plan: Pipeline, store: Store, tmp_path: Path) -> Path:
    """The conductor's file; its store is one that tests can open."""
    path = tmp_path / "pipeline.json"
    path.write_text(plan.model_copy(update={"store": store.url}).model_dump_json())
    return path


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_job_ends_well(
    told: Path, kube: Kube, store: Store, asked: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in STAGES:
        commit_stage(store, asked.run, stage)
    assert main(told) == 0
    assert f"{STAGES[-1]}: done already" in capsys.readouterr().out


def test_the_job_ends_with_one_code_for_whatever_stage_fails(
    told: Path, kube: Kube, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.end(cluster.pod_of("r-prep", "Running"), 73)
    cluster.end_job("r-prep", "Failed", "BackoffLimitExceeded", "too often")
    assert main(told) == 66
    assert "error: prep: prep failed with exit code 73" in capsys.readouterr().out


def test_the_job_with_a_file_that_is_none_of_ours(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps({"run": "r"}))
    assert main(path) == 64
    assert "error: " in capsys.readouterr().out


def test_the_job_stops_when_it_is_asked_to(
    told: Path, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = conductor.time.sleep

    def sleep(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(seconds)

    monkeypatch.setattr(conductor, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    with pytest.raises(SystemExit) as ended:
        main(told)
    assert ended.value.code == 143
