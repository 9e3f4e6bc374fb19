"""Bytes of weights, adapters and KV cache of a server, by hand from the released shapes."""

import pytest
from planning import CATALOG
from serve_planning import a_work

from thinktune.plan.serving import memory
from thinktune.plan.serving.division import Part, divides, local_kv_heads, parts
from thinktune.schema.catalog import GIB


def weights(model: str, precision: str, tensor: int = 1, pipeline: int = 1) -> list[int]:
    """Of each kind of stage."""
    work = a_work(model, precision=precision, tensor=tensor, pipeline=pipeline)
    return [memory.part_weight_bytes(work, part) for part in work.parts]


def per_token(model: str, **changes: object) -> int:
    """On a GPU of the last stage."""
    work = a_work(model, **changes)
    return memory.kv_bytes_per_token(work, work.parts[-1])


@pytest.mark.parametrize(
    ("model", "changes", "size"),
    [
        ("r1-distill-qwen-1.5b", {}, 2 * 28 * 2 * 128 * 2),
        ("r1-distill-qwen-1.5b", {"tensor": 2}, 14_336),
        # Two heads on four GPUs: each of them has a whole one.
        ("r1-distill-qwen-1.5b", {"tensor": 4}, 14_336),
        ("r1-distill-llama-8b", {}, 131_072),
        ("r1-distill-llama-8b", {"kv_dtype": "fp8"}, 65_536),
        ("r1-distill-llama-8b", {"tensor": 8}, 16_384),
        ("r1-distill-qwen-32b", {}, 2 * 64 * 8 * 128 * 2),
        ("r1-distill-qwen-32b", {"tensor": 4}, 65_536),
        ("deepseek-v3", {}, 70_272),
        ("deepseek-v3", {"tensor": 8}, 70_272),
        ("deepseek-v3", {"tensor": 8, "kv_dtype": "fp8"}, 35_136),
        ("deepseek-v3", {"tensor": 8, "pipeline": 2}, 30 * 576 * 2),
        ("deepseek-coder-v2", {"tensor": 8}, 69_120),
        ("deepseek-coder-v2-lite", {}, 31_104),
    ],
)
def test_bytes_of_the_kv_cache(model: str, changes: dict[str, object], size: int) -> None:
    assert per_token(model, **changes) == size


@pytest.mark.parametrize(
    ("model", "linears", "vocabulary"),
    [
        (
            "r1-distill-qwen-1.5b",
            28 * (2 * 1536 * 1536 + 2 * 1536 * 256 + 3 * 1536 * 8960),
            2 * 151_936 * 1536,
        ),
        (
            "r1-distill-llama-8b",
            32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336),
            2 * 128_256 * 4096,
        ),
        (
            "r1-distill-qwen-32b",
            64 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 27_648),
            2 * 152_064 * 5120,
        ),
    ],
)
@pytest.mark.parametrize(
    ("precision", "each"), [("16bit", 2.0), ("fp8", 1.000244), ("awq", 0.5390625), ("nf4", 0.5625)]
)
def test_weights_of_dense_models(
    model: str, linears: int, vocabulary: int, precision: str, each: float
) -> None:
    """Beside them stand norms and the table of rotary positions: 131,072 × 128 in 16 bits."""
    (size,) = weights(model, precision)
    counted = linears * each + vocabulary * 2 + 131_072 * 128 * 2
    assert counted <= size < counted * 1.002


def test_weights_of_v3_on_eight_gpus() -> None:
    attention = 1536 * 24_576 + 512 * 32_768 + 16_384 * 7168  # q_b, kv_b and o, divided
    whole = 7168 * 1536 + 7168 * 576  # q_a and kv_a, on each GPU
    dense = 3 * 3 * 7168 * 18_432
    experts = 58 * 257 * 3 * 7168 * 2048
    fp8 = (61 * attention + dense + experts) / 8 + 61 * whole
    absorbed = 61 * 16 * 256 * 512 * 2  # W_UK and W_UV of 16 heads, in 16 bits
    rest = 2 * 129_280 * 7168 * 2 / 8 + 58 * 256 * 7168 * 2
    (size,) = weights("deepseek-v3", "fp8", tensor=8)
    assert size == pytest.approx(fp8 * (1 + 4 / 128**2) + absorbed + rest, rel=1e-3)
    assert 79 < size / GIB < 80


def test_coder_v2_in_16_bits_is_its_parameters_and_what_vllm_copies() -> None:
    (size,) = weights("deepseek-coder-v2", "16bit")
    absorbed = 60 * 128 * 256 * 512 * 2
    assert size == pytest.approx(2 * 235_741_434_880 + absorbed, rel=1e-3)


def test_stages_as_vllm_divides_them() -> None:
    """61 layers in two: the last stage has fewer, and the first has the three dense ones."""
    v3 = CATALOG.models["deepseek-v3"]
    assert parts(v3, 2) == (Part(3, 28, True, False), Part(0, 30, False, True))
    # 61 = 15 × 4 + 1: the one more goes to the last stage but one.
    assert [part.layers for part in parts(v3, 4)] == [15, 15, 16, 15]
    first, last = weights("deepseek-v3", "fp8", tensor=8, pipeline=2)
    (whole,) = weights("deepseek-v3", "fp8", tensor=8)
    assert first + last == pytest.approx(whole, rel=1e-3)


def test_a_tied_head_is_there_once_unless_the_last_stage_is_another() -> None:
    rows = 49_152 * 576 * 2
    (alone,) = weights("smollm2-135m", "16bit")
    first, last = weights("smollm2-135m", "16bit", pipeline=2)
    positions = 8192 * 64 * 2
    assert first + last - alone == rows + positions


def test_places_of_adapters() -> None:
    """Of a divided linear, A or B is divided, and the other is on each GPU."""
    each = 32 * (
        2 * (4096 + 4096)  # q, o
        + 2 * (4096 + 1024)  # k, v
        + 3 * (4096 + 14_336)  # gate, up, down
    )
    work = a_work("r1-distill-llama-8b", adapters=1)
    (part,) = work.parts
    assert memory.adapter_bytes(work, part) == 16 * each * 2 == 83_886_080
    four = a_work("r1-distill-llama-8b", adapters=4, rank=64)
    assert memory.adapter_bytes(four, part) == 16 * 83_886_080
    divided = 32 * (
        2 * (4096 + 512) + 2 * (4096 + 128) + 2 * (4096 + 1792) + (1792 + 4096)  # of 8 GPUs
    )
    on_eight = a_work("r1-distill-llama-8b", adapters=1, tensor=8)
    assert memory.adapter_bytes(on_eight, part) == 16 * divided * 2


def test_experts_get_no_place_for_an_adapter() -> None:
    work = a_work("deepseek-coder-v2-lite", adapters=1)
    (part,) = work.parts
    attention = 27 * ((2048 + 3072) + (2048 + 576) + (2048 + 2048))
    mlps = 3 * (2048 + 10_944) + 26 * 3 * (2048 + 2816)
    assert memory.adapter_bytes(work, part) == 16 * (attention + mlps) * 2


def test_batch_sizes_that_vllm_captures() -> None:
    assert len(memory.graph_sizes(256)) == 51
    assert memory.graph_sizes(8) == (1, 2, 4, 8, 16)
    assert memory.graph_sizes(256)[-3:] == (480, 496, 512)


def test_what_latent_attention_unpacks_is_in_the_peak() -> None:
    """64k tokens × 16 heads × 256 in 16 bits are 512 MiB."""
    work = a_work("deepseek-v3", tensor=8, batched_tokens=2048)
    short = a_work("deepseek-v3", tensor=8, batched_tokens=2048, window=4096, sequences=8)
    more = memory.activation_bytes(work, work.parts[0]) - memory.activation_bytes(
        short, short.parts[0]
    )
    assert more == (65_536 - 32_768) * 16 * 256 * 2


@pytest.mark.parametrize(
    ("model", "precision", "sizes"),
    [
        ("r1-distill-qwen-1.5b", "16bit", [1, 2, 4]),  # 12 heads
        ("r1-distill-qwen-7b", "16bit", [1, 2, 4]),  # 28 heads
        ("r1-distill-qwen-32b", "16bit", [1, 2, 4, 8]),  # 40 heads
        ("smollm2-135m", "16bit", [1]),  # 9 heads
        ("deepseek-v3", "fp8", [1, 2, 4, 8, 16]),
        ("r1-distill-qwen-14b", "awq", [1, 2, 4]),  # 13,824 / 8 is no multiple of 128
        ("deepseek-coder-1.3b", "awq", [1]),  # nor is 5,504 / 2
        ("deepseek-coder-1.3b", "16bit", [1, 2, 4, 8, 16]),
    ],
)
def test_how_many_gpus_a_layer_divides_among(model: str, precision: str, sizes: list[int]) -> None:
    entry = CATALOG.models[model]
    assert [n for n in (1, 2, 4, 8, 16) if divides(entry, precision, n)] == sizes  # type: ignore[arg-type]


def test_heads_of_keys_are_never_less_than_one() -> None:
    entry = CATALOG.models["r1-distill-qwen-1.5b"]
    assert [local_kv_heads(entry, n) for n in (1, 2, 4)] == [2, 1, 1]


@pytest.mark.parametrize("hardware", ["t4x1", "l4x1", "a100-40x4", "h100x8", "h200x1", "b200x8"])
def test_vllms_share_leaves_room_for_what_it_does_not_count(hardware: str) -> None:
    work = a_work("r1-distill-qwen-1.5b", hardware)
    total = memory.total_bytes(work.hardware)
    left = total - total * memory.utilization(work)
    assert left >= memory.outside_bytes(work)
    assert 0.85 <= memory.utilization(work) <= 0.92
