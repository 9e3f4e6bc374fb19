"""Plans of servers: what fits where, how it is divided, and remedies that hold."""

from dataclasses import replace
from typing import Any

import pytest
from planning import CATALOG, a_recipe
from serve_planning import a_request, plan_of

from thinktune.plan.serving.plan import ServingPlan, smallest_hardware
from thinktune.plan.serving.request import (
    ServeRequest,
    ServeWish,
    request_for_model,
    request_for_recipe,
)
from thinktune.schema.errors import SpecInvalid

PRECISIONS = ("16bit", "fp8", "awq", "nf4")


def spread(plan: ServingPlan) -> tuple[int, int, int]:
    assert plan.execution is not None, plan.reason
    execution = plan.execution
    return execution.tensor_parallel, execution.pipeline_parallel, execution.data_parallel


def changed(request: ServeRequest, options: str) -> ServeRequest:
    """The request with options as the command line takes them."""
    words = options.split()
    given: dict[str, Any] = {
        name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else value
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
    return replace(request, **given)


@pytest.mark.parametrize("model", ["deepseek-v3", "deepseek-r1"])
@pytest.mark.parametrize(
    ("hardware", "nodes", "precision", "divided"),
    [
        ("h100x8", 1, "16bit", None),
        ("h100x8", 1, "fp8", None),
        ("a100-80x8", 1, "fp8", None),
        ("h100x8", 1, "awq", (8, 1, 1)),
        ("h200x8", 1, "fp8", (8, 1, 1)),
        ("h200x8", 1, "16bit", None),
        ("h100x8", 2, "fp8", (8, 2, 1)),
    ],
)
def test_v3_and_r1_at_65536_tokens(
    model: str, hardware: str, nodes: int, precision: str, divided: tuple[int, int, int] | None
) -> None:
    plan = plan_of(a_request(model, hardware, nodes=nodes, precision=precision, window=65_536))
    assert plan.fits == (divided is not None)
    if divided is not None:
        assert spread(plan) == divided
        assert plan.full_windows >= 4


def test_what_would_fit_instead_of_fp8_on_eight_h100() -> None:
    plan = plan_of(a_request("deepseek-r1", "h100x8", precision="fp8", window=65_536))
    changes = {other.change for other in plan.alternatives}
    assert {"--precision awq", "--nodes 2", "--hardware h200x8"} <= changes
    assert "needs at least" in plan.reason and "79.6 GiB of weights" in plan.reason
    assert plan.execution is None and plan.arguments == ()


@pytest.mark.parametrize(
    ("model", "hardware", "precision", "divided"),
    [
        ("deepseek-coder-v2", "h100x8", "16bit", (8, 1, 1)),
        ("deepseek-coder-v2-lite", "h100x1", "16bit", (1, 1, 1)),
        ("r1-distill-qwen-32b", "a100-40x4", "16bit", (4, 1, 1)),
        ("r1-distill-qwen-32b", "a100-40x4", "nf4", (2, 1, 2)),
        ("r1-distill-qwen-7b", "h100x8", "16bit", (1, 1, 8)),
        ("r1-distill-llama-8b", "l4x1", "16bit", (1, 1, 1)),
        ("r1-distill-llama-8b", "a10gx1", "nf4", (1, 1, 1)),
    ],
)
def test_a_copy_gets_the_fewest_gpus_that_do(
    model: str, hardware: str, precision: str, divided: tuple[int, int, int]
) -> None:
    assert spread(plan_of(a_request(model, hardware, precision=precision))) == divided


def test_a_t4_computes_in_float16_and_not_in_fp8() -> None:
    plan = plan_of(a_request("r1-distill-qwen-1.5b", "t4x1"))
    assert plan.execution is not None and plan.execution.dtype == "float16"
    assert any("no bfloat16" in sentence for sentence in plan.assumptions)
    for refused in ({"precision": "fp8"}, {"kv_dtype": "fp8"}):
        assert not plan_of(a_request("r1-distill-qwen-1.5b", "t4x1", **refused)).fits
    assert not plan_of(a_request("deepseek-coder-v2-lite", "t4x8")).fits


def test_a_window_beyond_the_models() -> None:
    plan = plan_of(a_request("deepseek-coder-1.3b", "l4x1", window=20_000))
    assert plan.reason.endswith("the window is 20,000 tokens, and the model supports 16,384")
    assert plan.alternatives[0].change == "--window 16384"


def test_nf4_of_a_release_in_fp8() -> None:
    plan = plan_of(a_request("deepseek-r1", "h200x8", precision="nf4"))
    assert "vLLM does not quantize those to NF4" in plan.reason
    assert "--precision fp8" in {other.change for other in plan.alternatives}


@pytest.mark.parametrize("model", CATALOG.models)
def test_every_request_fits_or_has_a_remedy_that_does(model: str) -> None:
    window = min(32_768, CATALOG.models[model].context)
    for hardware in CATALOG.hardware:
        for precision in PRECISIONS:
            request = a_request(model, hardware, precision=precision, window=window)
            plan = plan_of(request)
            if plan.fits:
                assert plan.kv_tokens >= window
                assert not plan.alternatives
                continue
            assert plan.alternatives, plan.reason
            other = plan.alternatives[0]
            again = plan_of(changed(request, other.change))
            assert again.fits, f"{plan.reason}: {other.change}"
            assert again.kv_tokens == other.kv_tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": "h100x8", "precision": "fp8", "window": 131_072},
        {"hardware": "cpu", "precision": "nf4", "window": 999_999, "kv_dtype": "fp8"},
        {"hardware": "t4x8", "precision": "16bit", "nodes": 64},
        {"hardware": "h100x1", "precision": "awq"},
    ],
)
@pytest.mark.parametrize("model", ["deepseek-v3", "smollm2-135m", "r1-distill-llama-70b"])
def test_all_remedies_hold(model: str, changes: dict[str, Any]) -> None:
    request = a_request(model, **changes)
    plan = plan_of(request)
    assert plan.fits or plan.alternatives
    for other in plan.alternatives:
        assert plan_of(changed(request, other.change)).fits, other.change


def test_memory_adds_up_to_vllms_share() -> None:
    plan = plan_of(a_request("r1-distill-qwen-32b", "a100-40x4", adapters=2))
    assert plan.execution is not None
    used = sum(plan.gpu_memory_bytes.values())
    assert used == plan.gpu_capacity_bytes - plan.gpu_outside_bytes
    share = plan.execution.gpu_memory_utilization
    assert used == pytest.approx(share * plan.gpu_capacity_bytes, abs=1)
    assert plan.kv_tokens == plan.gpu_memory_bytes["kv_cache"] // (16 * 65_536) * 16


def test_less_of_everything_where_it_is_tight() -> None:
    """8B in 16 bits on an L4 leaves 4.5 GiB: fewer requests at once, not no server."""
    plan = plan_of(a_request("r1-distill-llama-8b", "l4x1"))
    assert plan.execution is not None
    assert plan.execution.max_num_seqs == 32
    assert plan.execution.max_num_batched_tokens == 2048


def test_a_pod_gets_longer_to_start_the_more_it_reads() -> None:
    small = plan_of(a_request("r1-distill-qwen-1.5b", "h100x1"))
    large = plan_of(a_request("deepseek-r1", "h200x8", precision="fp8"))
    assert small.environment == {"VLLM_ENGINE_READY_TIMEOUT_S": "600"}
    assert large.load_s == 1343  # 671 GB at 500 MB/s
    assert large.environment == {"VLLM_ENGINE_READY_TIMEOUT_S": "3060"}
    assert large.startup_probe_s == 3180
    refused = plan_of(a_request("deepseek-r1", "h100x8", precision="fp8"))
    assert (refused.load_s, refused.environment) == (1343, {})


def test_a_node_without_the_disk_for_the_weights() -> None:
    small = CATALOG.hardware["h200x8"].model_copy(update={"disk_gib": 500})
    catalog = {**CATALOG.hardware, "h200x8": small}
    from thinktune.plan.serving.plan import make_serving_plan

    request = a_request("deepseek-r1", "h200x8", precision="fp8")
    plan = make_serving_plan(request, CATALOG.models["deepseek-r1"], catalog)
    assert not plan.fits
    assert "needs 635 GiB of disk, and the node has 500" in plan.reason


def test_a_recipe_is_served_as_it_trains() -> None:
    recipe = a_recipe(
        "r1-distill-llama-8b", "l4x1", train={"rank": 12, "targets": "attention"}, data={}
    )
    model = CATALOG.models[recipe.model]
    request = request_for_recipe(recipe, model, recipe.hardware, ServeWish())
    assert (request.precision, request.adapters, request.rank) == ("nf4", 1, 16)
    assert request.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    wished = ServeWish(precision="16bit", window=4096, adapters=0, kv_dtype="fp8")
    other = request_for_recipe(recipe, model, "h100x1", wished)
    assert (other.precision, other.window, other.adapters) == ("16bit", 4096, 0)
    execution = plan_of(request).execution
    assert execution is not None and execution.quantization == "bitsandbytes"


def test_a_recipe_on_a_base_released_in_fp8_is_served_in_fp8() -> None:
    recipe = a_recipe("deepseek-v3", "h200x8")
    request = request_for_recipe(recipe, CATALOG.models["deepseek-v3"], "h200x8", ServeWish())
    assert request.precision == "fp8"
    execution = plan_of(request).execution
    assert execution is not None and execution.quantization is None


def test_a_rank_that_vllm_does_not_take() -> None:
    model = CATALOG.models["r1-distill-llama-8b"]
    with pytest.raises(SpecInvalid, match="--rank: rank 513, and vLLM takes 512 at most; take an"):
        request_for_model("r1-distill-llama-8b", model, "l4x1", ServeWish(rank=513))
    recipe = a_recipe("r1-distill-llama-8b", "l4x1", train={"rank": 1024})
    with pytest.raises(SpecInvalid, match=r"train\.rank: rank 1024"):
        request_for_recipe(recipe, model, "l4x1", ServeWish())


@pytest.mark.parametrize(
    ("model", "window", "hardware"),
    [
        ("smollm2-135m", 8192, "t4x1"),
        ("r1-distill-llama-8b", 32_768, "l4x1"),
        ("deepseek-r1", 65_536, "h200x8"),
    ],
)
def test_the_smallest_node_that_a_model_fits(model: str, window: int, hardware: str) -> None:
    entry = CATALOG.models[model]
    request = request_for_model(model, entry, "", ServeWish(window=window))
    found = smallest_hardware(request, entry, CATALOG.hardware)
    used = CATALOG.hardware[found]
    named = CATALOG.hardware[hardware]
    assert plan_of(replace(request, hardware=found)).fits
    size = used.num_gpus * used.gpu_memory_gib
    assert size <= named.num_gpus * named.gpu_memory_gib
