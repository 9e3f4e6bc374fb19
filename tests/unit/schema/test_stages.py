"""The table of stages, and that what derives from it does."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from thinktune.schema.stages import STAGE_INFO, STAGES, Stage, earlier, up_to

ROOT = Path(__file__).parents[3]


def test_the_table_names_each_stage_once() -> None:
    assert tuple(STAGE_INFO) == get_args(Stage)


def test_a_stage_reads_only_what_is_made_before_it() -> None:
    order = list(STAGE_INFO)
    for info in STAGE_INFO.values():
        assert all(order.index(name) < order.index(info.name) for name in info.inputs)
        assert list(info.inputs) == sorted(info.inputs, key=order.index)


def test_each_stage_has_its_package_and_its_task() -> None:
    for name, info in STAGE_INFO.items():
        assert find_spec(f"{info.module}.__main__") is not None
        assert find_spec(f"{info.module}.stage") is not None
        assert info.task.model_fields["stage"].default == name


def test_make_builds_the_images_of_the_table() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"^IMAGES \?= (.*)$", makefile, re.MULTILINE)
    assert found is not None
    assert found[1].split() == list(dict.fromkeys(info.image for info in STAGE_INFO.values()))


def test_what_a_stage_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [earlier(stage) for stage in ("prep", "train")] == [(), ("prep",)]
    assert earlier("evaluate") == ("prep", "train")
    for inputs, found in [(("train",), ("prep", "train")), (("prep",), ("prep",))]:
        evaluate = STAGE_INFO["evaluate"]._replace(inputs=inputs)
        monkeypatch.setitem(STAGE_INFO, "evaluate", evaluate)
        assert earlier("evaluate") == found


def test_a_run_up_to_a_stage_leaves_out_what_that_does_not_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [up_to(stage) for stage in ("prep", "train")] == [("prep",), ("prep", "train")]
    assert up_to(STAGES[-1]) == STAGES
    monkeypatch.setitem(STAGE_INFO, "train", STAGE_INFO["train"]._replace(inputs=()))
    assert up_to("train") == ("train",)
    assert up_to(STAGES[-1]) == STAGES
