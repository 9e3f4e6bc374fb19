"""Stages as processes of this machine: what is done already, what fails, what is refused.

Those that are killed or stopped in the middle are in tests/local: they need a model.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from launching import CATALOG, commit_stage, depends

from thinktune.launch.local import Needs, _address, ask_module, run_local
from thinktune.launch.runs import Run, make_run
from thinktune.recipes.compose import load_recipe
from thinktune.schema.comparison import ComparisonRequest
from thinktune.schema.errors import InputMissing, SpecInvalid, StageFailed
from thinktune.schema.stages import STAGES
from thinktune.store import Store

CPU = CATALOG.hardware["cpu"]
Say = Callable[[str], None]


@pytest.fixture
def run(store: Store) -> Run:
    recipe = load_recipe("demo", (), catalog=CATALOG)
    return make_run(recipe, CATALOG, store.url, "r")


def test_what_is_done_is_not_run_again(run: Run, store: Store, say: Say, said: list[str]) -> None:
    made = {stage: commit_stage(store, run, stage) for stage in STAGES}
    assert run_local(run, CPU, until=STAGES[-1], say=say) == made
    assert said == [f"{stage}: done already" for stage in STAGES]


def test_an_artifact_of_another_recipe(run: Run, store: Store, say: Say) -> None:
    commit_stage(store, run, "prep", task_sha256="0" * 64)
    with pytest.raises(InputMissing, match="made by another recipe"):
        run_local(run, CPU, until="prep", say=say)


def test_an_artifact_that_was_not_made_from_its_inputs(run: Run, store: Store, say: Say) -> None:
    commit_stage(store, run, "prep")
    commit_stage(store, run, "train", inputs={})
    with pytest.raises(InputMissing, match="from other inputs"):
        run_local(run, CPU, until="train", say=say)


def test_a_stage_on_which_the_last_one_does_not_depend_is_not_run(
    run: Run, store: Store, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    depends(monkeypatch, "train")
    made = commit_stage(store, run, "train")
    assert run_local(run, CPU, until="train", say=say) == {"train": made}


def test_no_question_is_held_out_for_an_evaluation_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe("demo", ("data.split.test_rows=0",), catalog=CATALOG)
    make_run(recipe, CATALOG, "file:///store", until="train")
    depends(monkeypatch, "evaluate", "prep")
    depends(monkeypatch, "train", "evaluate")
    with pytest.raises(SpecInvalid, match="no question to evaluate with"):
        make_run(recipe, CATALOG, "file:///store", until="train")


def test_hardware_that_this_machine_has_not(run: Run, say: Say) -> None:
    """Neither a laptop nor a node with GPUs runs several ranks."""
    with pytest.raises(SpecInvalid, match=r"no NVIDIA GPU|one GPU") as refused:
        run_local(run, CATALOG.hardware["a100-80x8"], until="prep", say=say)
    assert "submit it to a cluster" in refused.value.remedy


def test_a_stage_that_fails_has_its_exit_code(run: Run, say: Say) -> None:
    """As with an image that is older than the launcher."""
    other = run.tasks["prep"].model_copy(update={"code": "0" * 64})
    old = replace(run, tasks=run.tasks | {"prep": other})
    with pytest.raises(StageFailed, match="prep failed with exit code 64") as failed:
        run_local(old, CPU, until="prep", say=say)
    assert failed.value.code == 64


def test_a_program_whose_packages_are_not_installed() -> None:
    request = ComparisonRequest(store="file:///none", runs=(), metrics=(), out="x")
    with pytest.raises(InputMissing, match=r"no_such_package.*pip install 'thinktune\[review\]'"):
        ask_module("thinktune.none", request, Needs("review", ("json", "no_such_package")))


def test_the_line_that_a_server_prints_when_it_answers() -> None:
    assert _address("12:00:00 serves a-run at http://127.0.0.1:80") == "http://127.0.0.1:80"
    for line in ("", "12:00:00 serves", "serves a-run at http://127.0.0.1:80 too many words"):
        assert _address(line) is None
