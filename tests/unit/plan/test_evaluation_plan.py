"""The plan of an evaluation: by hand for one recipe, and what changes it."""

from typing import Any

import pytest
from planning import CATALOG, a_recipe

from thinktune.plan.evaluation import memory, speed
from thinktune.plan.evaluation.memory import Answering
from thinktune.plan.evaluation.plan import EvaluationPlan, plan_evaluation
from thinktune.schema.catalog import GIB
from thinktune.schema.engines import choose, rows_at_once

MODEL, H200 = "r1-distill-qwen-1.5b", CATALOG.hardware["h200x1"]
LINEAR = 28 * (2 * 1536 * 1536 + 2 * 1536 * 256 + 3 * 1536 * 8960)
HEAD = 151_936 * 1536
TOKEN = 2 * 28 * 2 * 128 * 2  # keys and values of 28 layers, 2 heads of 128, 2 bytes


def evaluated(model: str, hardware: str, **changes: Any) -> EvaluationPlan:
    rows = {"split": {"test_rows": 326}, "max_tokens": 2048, **changes.pop("data", {})}
    recipe = a_recipe(model, hardware, data=rows, **changes)
    found = plan_evaluation(recipe, CATALOG.models[model], CATALOG.hardware[hardware])
    assert found is not None
    return found


def work(**changes: Any) -> Answering:
    facts: dict[str, Any] = {
        "model": CATALOG.models[MODEL],
        "engine": "vllm",
        "base": "16bit",
        "element_bytes": 2,
        "adapter": 18_464_768,
        "rank": 16,
        "requests": 300,
        "prompt_tokens": 250,
        "longest_prompt_tokens": 375,
        "max_new_tokens": 4096,
        "window": 5120,
    }
    return Answering(**{**facts, **changes})


def test_a_step_by_hand() -> None:
    """100 rows after 1,000 tokens: weights and cache are read at 0.8 × 4.8 TB/s; 2 ms and 19.6 µs a
    row on the host. Arithmetic hides behind reading: 2 × 100 × 1.54e9 at 0.5 × 989 TFLOP/s is
    0.62 ms."""
    reading = 2 * (LINEAR + HEAD) / 3.84e12
    assert reading == pytest.approx(0.804e-3, rel=1e-3)
    cached = 100 * 1000 * TOKEN / 3.84e12
    expected = reading + cached + 2e-3 + 100 * 1.96e-5
    assert speed.step_seconds(work(), H200, 100, 1000) == pytest.approx(expected, rel=1e-6)
    # A packed base is read and written unpacked before that.
    unpacking = LINEAR * (0.5 + 0.0159 + 2) / 3.84e12
    packed = speed.step_seconds(work(base="nf4"), H200, 100, 1000)
    assert packed == pytest.approx(expected + unpacking, rel=1e-6)
    # With many rows the arithmetic takes longer than reading.
    many = speed.step_seconds(work(), H200, 500, 0)
    computing = 2 * 500 * (LINEAR + HEAD) / (0.5 * 989e12)
    assert many == pytest.approx(computing + 2e-3 + 500 * 1.96e-5, rel=1e-6)


def test_a_recipe_by_hand() -> None:
    """326 questions × 2 arms on an H200, answers of 0 to 4,096 tokens: all in one group, of which
    half is left on average."""
    found = evaluated(MODEL, "h200x1", train={"base": "16bit"})
    assert found.engine == "vllm"
    assert [(arm.name, arm.requests) for arm in found.arms] == [("base", 326), ("tuned", 326)]
    assert (found.requests, found.rows) == (652, 326)
    assert found.most_answer_tokens == 652 * 4096
    assert found.answer_tokens == 652 * 2048
    context, rows = 250 + 4096 / 3, 163
    computing = 2 * rows * (LINEAR + HEAD) / (0.5 * 989e12)
    step = computing + rows * context * TOKEN / 3.84e12 + 2e-3 + rows * 1.96e-5
    prompts = 2 * 326 * 250 * LINEAR / (0.5 * 989e12)
    arm_s = 4096 * step + prompts
    assert found.arms[0].hours * 3600 == pytest.approx(arm_s, rel=1e-6)
    released = 2 * 1_777_088_000
    start = 110 + released / 1.3e9
    whole = 2 * arm_s + start + released / 200e6
    assert found.hours * 3600 == pytest.approx(whole, rel=1e-6)
    assert found.most_hours > found.hours


def test_more_requests_than_rows_wait_for_a_row() -> None:
    """Twice as many answers take as much longer as one answer's mean length at all rows."""
    at_once = memory.rows(work(requests=10_000), H200)
    assert at_once == 512
    twice = speed.arm_seconds(work(requests=2 * at_once), H200, first=True).expected
    once = speed.arm_seconds(work(requests=at_once), H200, first=True).expected
    step = speed.step_seconds(work(), H200, at_once, 250 + 4096 / 3)
    prompts = 2 * at_once * 250 * LINEAR / (0.5 * 989e12)
    assert twice - once == pytest.approx(2048 * step + prompts, rel=1e-6)


def test_the_cache_limits_how_many_answers_there_are_at_once() -> None:
    found = evaluated("r1-distill-qwen-32b", "a100-40x4", evaluate={"max_new_tokens": 8192})
    cache = found.gpu_memory_bytes["cache"]
    assert sum(found.gpu_memory_bytes.values()) == pytest.approx(0.9 * 40 * GIB, abs=2)
    token = 2 * 64 * 8 * 128 * 2
    assert found.rows == cache // (token * (250 + 4096))
    assert 1 < found.rows < 326


def test_arms_come_from_the_recipe() -> None:
    plain = evaluated(MODEL, "h200x1")
    spec = {"instruction": "End in a line.", "precisions": ["16bit", "nf4"], "samples": 2}
    found = evaluated(MODEL, "h200x1", evaluate=spec)
    assert [(arm.name, arm.precision) for arm in found.arms] == [
        ("base", "nf4"),
        ("asked", "nf4"),
        ("tuned", "nf4"),
        ("tuned-16bit", "16bit"),
    ]
    assert found.requests == 4 * 2 * 326
    assert found.start_s == 2 * plain.start_s  # vLLM starts once for each precision
    fewer = evaluated(MODEL, "h200x1", evaluate={"questions": 26})
    assert (fewer.questions, fewer.requests) == (26, 52)


@pytest.mark.parametrize(
    ("model", "hardware", "wanted", "engine"),
    [
        (MODEL, "t4x1", "auto", "transformers"),
        (MODEL, "l4x1", "auto", "vllm"),
        (MODEL, "l4x1", "transformers", "transformers"),
        (MODEL, "cpu", "auto", "transformers"),
        ("deepseek-r1", "h200x8", "auto", "transformers"),
    ],
)
def test_the_engine_is_the_one_that_the_stage_chooses(
    model: str, hardware: str, wanted: Any, engine: str
) -> None:
    entry, node = CATALOG.models[model], CATALOG.hardware[hardware]
    found = evaluated(model, hardware, evaluate={"engine": wanted})
    capability = {"t4x1": (7, 5), "l4x1": (8, 9), "h200x8": (9, 0), "cpu": None}[hardware]
    chosen = choose(wanted, entry, capability, vllm_installed=True)
    assert (found.engine, found.engine_reason[:9]) == (engine, chosen.reason[:9])
    assert chosen.name == engine
    if engine == "transformers" and node.num_gpus:
        window = 375 + 4096
        most = rows_at_once(entry, "nf4", window, int(node.gpu_memory_gib * GIB))
        assert found.rows == min(326, most)


def test_a_base_that_one_gpu_does_not_hold() -> None:
    spec = {"precisions": ["16bit"]}
    found = evaluated("r1-distill-qwen-32b", "a100-40x4", evaluate=spec)
    assert not found.fits
    assert "the answers need at least" in found.reason
    assert "leave 16bit out of evaluate.precisions" in found.reason
    assert evaluated("r1-distill-qwen-32b", "a100-80x4", evaluate=spec).fits


def test_a_rank_that_vllm_does_not_take() -> None:
    found = evaluated(MODEL, "h200x1", train={"rank": 1024})
    assert not found.fits and "set evaluate.engine=transformers" in found.reason
    other = {"engine": "transformers"}
    assert evaluated(MODEL, "h200x1", train={"rank": 1024}, evaluate=other).fits


def test_nothing_is_asked_where_no_question_is_held_out() -> None:
    recipe = a_recipe(MODEL, "h200x1")
    assert plan_evaluation(recipe, CATALOG.models[MODEL], H200) is None


def test_slower_memory_makes_slower_answers() -> None:
    order = ["h200x1", "h100x1", "a100-40x1", "l4x1"]
    rates = [evaluated("r1-distill-llama-8b", name).tokens_per_s for name in order]
    assert rates == sorted(rates, reverse=True)


def test_questions_of_benchmarks_are_asked_as_well() -> None:
    recipe = a_recipe(MODEL, "h200x1", data={"split": {"test_rows": 326}})
    alone, beside = (
        plan_evaluation(recipe, CATALOG.models[MODEL], H200, more) for more in (0, 300)
    )
    assert alone is not None and beside is not None
    assert (beside.questions, beside.benchmark_questions) == (alone.questions, 300)
    assert beside.hours > alone.hours


def test_a_merged_model_has_no_adapter_and_fp8_needs_vllm() -> None:
    rounded = evaluated(MODEL, "h200x1", evaluate={"precisions": ["merged", "fp8"]})
    assert rounded.fits
    assert [arm.precision for arm in rounded.arms] == ["nf4", "nf4", "merged", "fp8"]
    refused = evaluated(MODEL, "t4x1", evaluate={"precisions": ["fp8"]})
    assert not refused.fits
    assert "leave fp8 out" in refused.reason


def test_shards_divide_the_hours() -> None:
    whole, divided = (
        evaluated(MODEL, "h200x1", evaluate={"shards": n, "samples": 8}) for n in (1, 4)
    )
    assert divided.requests == whole.requests
    assert divided.hours < whole.hours
