"""A run whose data and adapter are there, and whose recipe has gained a benchmark since."""

import pytest
from kube_cluster import Cluster
from launching import Bring, commit_files, commit_stage, request

from thinktune.launch.cluster.kube import Kube
from thinktune.launch.find_finished import finished
from thinktune.launch.preflight import Request
from thinktune.launch.runs import pipeline_of
from thinktune.launch.status.observed import observe
from thinktune.launch.submit import left
from thinktune.schema.errors import InputMissing
from thinktune.schema.manifest import Manifest
from thinktune.schema.pipeline import Pipeline
from thinktune.schema.stages import Stage
from thinktune.store import Store, manifest_digest

GAINED = "evaluate.benchmarks.medqa.dataset=medqa-usmle-test"
BESIDE = "benchmarks/medqa"


@pytest.fixture
def gained() -> Request:
    return request(GAINED)


@pytest.fixture
def made(store: Store) -> dict[Stage, Manifest]:
    """What the run had committed before."""
    return {stage: commit_stage(store, request().run, stage) for stage in ("prep", "train")}


def commit_benchmark(store: Store, of: Request, prep: Manifest) -> None:
    made_by = of.run.tasks["prep"].commits_beside()[BESIDE]
    inputs = {"prep": manifest_digest(prep)}
    prefix = f"runs/{of.run.id}/{BESIDE}"
    commit_files(store, prefix, kind="benchmark", run="r", inputs=inputs, task_sha256=made_by)


def test_prep_alone_is_submitted_again(
    gained: Request,
    made: dict[Stage, Manifest],
    bring: Bring,
    cluster: Cluster,
    kube: Kube,
    store: Store,
) -> None:
    pipeline = bring(gained)
    assert [each.beside for each in pipeline.stages] == [(BESIDE,), (), ()]
    assert cluster.jobs() == ["r-evaluate", "r-prep"]  # and no training
    assert left(pipeline, kube, store)
    assert observe("r", "prep", kube, store, beside=(BESIDE,)).state != "done"
    assert observe("r", "prep", kube, store).state == "done"
    commit_benchmark(store, gained, made["prep"])
    assert observe("r", "prep", kube, store, beside=(BESIDE,)).state == "done"
    run = gained.run
    assert finished(store, run.tasks["prep"], "prep", {}) == made["prep"]
    assert finished(store, run.tasks["train"], "train", made) == made["train"]


def test_an_evaluation_is_of_the_benchmark_that_it_read(
    gained: Request, made: dict[Stage, Manifest], store: Store
) -> None:
    commit_benchmark(store, gained, made["prep"])
    commit_stage(store, gained.run, "evaluate")
    task = gained.run.tasks["evaluate"]
    assert task.reads_beside() == (BESIDE,)
    with pytest.raises(InputMissing, match="from other inputs"):
        finished(store, task, "evaluate", made)


def test_without_a_benchmark_nothing_is_told_of_one() -> None:
    plain = request()
    pipeline = pipeline_of(plain.run, plain.stages, plain.cluster)
    assert "beside" not in pipeline.model_dump(mode="json")["stages"][0]
    assert Pipeline.parse(pipeline.model_dump(mode="json"), "x") == pipeline
    assert plain.run.tasks["prep"].result_digest() == (
        request(GAINED).run.tasks["prep"].result_digest()
    )
