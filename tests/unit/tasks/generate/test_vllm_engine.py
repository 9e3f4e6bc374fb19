"""What the vLLM engine decides without vLLM; tests/local/test_vllm.py runs it."""

import json
from pathlib import Path

import pytest

from thinktune.schema.errors import DataInvalid, Preempted, SpecInvalid
from thinktune.store import open_store
from thinktune.tasks.generate.protocol import Request, Sampling
from thinktune.tasks.generate.vllm import VllmEngine, _rank_setting, prepare
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8, stop_ids=(2,))


def engine(folder: Path, context: int | None = None) -> VllmEngine:
    return VllmEngine(
        folder, folder, repo="tiny", base="16bit", dtype="auto", window=900, context=context
    )


def asked(folder: Path, tokens: int, stop: Stop, context: int | None = None) -> None:
    reporter = Reporter(open_store(f"file://{folder}"), "r", "evaluate", "a")
    request = Request("q0", (40,) * tokens, 0, adapter=False)
    list(engine(folder, context).generate([(request,)], SAMPLING, reporter, stop))


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="its prompt has 1024 tokens of 1024") as caught:
        asked(tmp_path, 1024, Stop())
    assert caught.value.exit_code == 65
    with pytest.raises(DataInvalid, match="of 512"):  # the model's context is shorter
        asked(tmp_path, 600, Stop(), context=512)


def test_asked_to_stop_it_does_not_start(tmp_path: Path) -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(Preempted):
        asked(tmp_path, 4, stop)


@pytest.mark.parametrize(("rank", "setting"), [(1, 1), (12, 16), (16, 16), (33, 64), (512, 512)])
def test_a_rank_is_rounded_up_to_what_vllm_takes(tmp_path: Path, rank: int, setting: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert _rank_setting(tmp_path) == setting


def test_the_largest_rank_of_a_pattern_counts(tmp_path: Path) -> None:
    config = {"r": 8, "rank_pattern": {"q_proj": 40}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert _rank_setting(tmp_path) == 64
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(SpecInvalid, match="rank 1024, and vLLM takes 512 at most"):
        _rank_setting(tmp_path)


def test_compiled_graphs_are_kept_where_pods_share_a_volume() -> None:
    alone: dict[str, str] = {}
    prepare(alone)
    assert "VLLM_CACHE_ROOT" not in alone
    shared = {"THINKTUNE_CACHE": "/cache", "VLLM_LOGGING_LEVEL": "INFO"}
    prepare(shared)
    assert shared["VLLM_CACHE_ROOT"] == "/cache/vllm"
    assert shared["VLLM_LOGGING_LEVEL"] == "INFO"
