"""The arguments of vLLM that follow from a plan, and the ranks that it takes."""

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serving import (
    ServeExecution,
    lora_rank_setting,
    vllm_arguments,
    vllm_environment,
)

SMALL = ServeExecution(
    precision="nf4",
    quantization="bitsandbytes",
    dtype="bfloat16",
    tensor_parallel=1,
    max_model_len=4096,
    gpu_memory_utilization=0.9,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    ready_timeout_s=600,
)


@pytest.mark.parametrize(
    ("rank", "setting"), [(1, 1), (2, 8), (8, 8), (9, 16), (33, 64), (257, 320), (512, 512)]
)
def test_ranks_are_rounded_up(rank: int, setting: int) -> None:
    assert lora_rank_setting(rank, "--rank", "take a lower one") == setting


def test_a_rank_that_is_too_high() -> None:
    with pytest.raises(SpecInvalid) as caught:
        lora_rank_setting(513, "--rank", "take a lower one")
    assert str(caught.value) == "--rank: rank 513, and vLLM takes 512 at most; take a lower one"


def test_arguments_of_a_base_alone() -> None:
    assert " ".join(vllm_arguments(SMALL)) == (
        "--dtype bfloat16 --max-model-len 4096 --gpu-memory-utilization 0.9 --max-num-seqs 64"
        " --max-num-batched-tokens 2048 --tensor-parallel-size 1 --pipeline-parallel-size 1"
        " --data-parallel-size 1 --kv-cache-dtype auto --quantization bitsandbytes"
    )
    assert vllm_environment(SMALL) == {"VLLM_ENGINE_READY_TIMEOUT_S": "600"}


def test_arguments_of_adapters_on_two_nodes() -> None:
    changes = {
        "quantization": None,
        "nodes": 2,
        "max_loras": 3,
        "max_lora_rank": 64,
        "lora_targets": ("q_proj", "o_proj"),
        "eager": True,
    }
    arguments = " ".join(vllm_arguments(SMALL.model_copy(update=changes)))
    assert "--quantization" not in arguments
    assert arguments.endswith(
        "--nnodes 2 --enable-lora --max-loras 3 --max-lora-rank 64"
        " --lora-target-modules q_proj o_proj --enforce-eager"
    )
