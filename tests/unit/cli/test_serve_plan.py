"""`thinktune plan --serve`: what it prints, what it refuses and how."""

import json

import pytest
from command import thinktune


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deepseek-r", "--serve"], "did you mean 'deepseek-r1'"),
        (["--serve"], "no recipe or model is given"),
        (["demo", "--serve", "--hardware", "h100x9"], "did you mean 'h100x8'"),
        (["deepseek-r1", "--serve", "--set", "a=1"], "--set changes a recipe"),
        (["demo", "--window", "4096"], "an option of a server is given"),
        (["demo", "--serve", "--all-hardware"], "goes with neither"),
        (["demo", "--serve", "--rank", "600"], "--rank: rank 600, and vLLM takes 512 at most"),
        (["demo", "--serve", "--precision", "int8"], "'int8' is not one of"),
        (["demo", "--serve", "--window", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(arguments: list[str], said: str) -> None:
    ended = thinktune("plan", *arguments)
    assert said in ended.err
    assert ended.code == 64
    assert "Traceback" not in ended.err


def test_a_refusal_fits_80_columns_and_shows_what_would_fit() -> None:
    call = ["plan", "deepseek-r1", "--serve", "--hardware", "h100x8", "--window", "65536"]
    ended = thinktune(*call, more={"COLUMNS": "200"})
    assert ended.code == 64
    assert "What would fit:" in ended.out and "--nodes 2" in ended.out
    assert "vLLM is told" not in ended.out
    assert max(len(line) for line in ended.out.splitlines()) <= 80
    planned = json.loads(thinktune(*call, "--output", "json").out)
    assert planned["fits"] is False and planned["execution"] is None


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_plan_fits_80_columns(columns: str) -> None:
    ended = thinktune("plan", "qwen-32b", "--serve", "--adapters", "3", more={"COLUMNS": columns})
    assert ended.code == 0
    assert max(len(line) for line in ended.out.splitlines()) <= 80
    assert "--max-loras 3" in ended.out
    assert "VLLM_ENGINE_READY_TIMEOUT_S=" in ended.out


def test_a_plan_for_programs() -> None:
    ended = thinktune(
        "plan", "r1-distill-llama-8b", "--serve", "--hardware", "l4x1", "--kv-dtype", "fp8",
        "--window", "8192", "--precision", "fp8", "--output", "json",
    )  # fmt: skip
    assert ended.code == 0
    planned = json.loads(ended.out)
    assert planned["kv_bytes_per_token"] == 65_536
    assert planned["execution"]["quantization"] == "fp8"
    arguments = planned["arguments"]
    assert arguments[arguments.index("--kv-cache-dtype") + 1] == "fp8"
    assert arguments[arguments.index("--max-model-len") + 1] == "8192"


def test_without_hardware_a_model_gets_the_smallest_node_that_it_fits() -> None:
    planned = json.loads(thinktune("plan", "smollm2-135m", "--serve", "--output", "json").out)
    assert (planned["fits"], planned["hardware"]) == (True, "t4x1")
