"""Arms at each precision, answered by the real engine on the tiny model and a random adapter."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.schema.arms import arms_of
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.recipe import EvaluateSpec, Precision
from thinktune.schema.stages import EvaluateTask
from thinktune.store import open_store
from thinktune.tasks.evaluate.arms import Engines
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.generate.protocol import Request, Sampling
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8, stop_ids=(2,))
FACTS = PromptFacts(stop_ids=(2,), template_sha256="a" * 64, opens_think=False)


def task(*precisions: Precision, base: str = "16bit") -> EvaluateTask:
    return EvaluateTask(
        run="r",
        store="file:///nowhere",
        model_name="tiny",
        model=tiny_entry(),
        evaluate=EvaluateSpec(precisions=precisions),
        final_answer=None,
        base=base,  # type: ignore[arg-type]
        dtype="float32",
    )


@pytest.fixture
def inputs(tmp_path: Path, tiny_folder: Path) -> Inputs:
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=list(tiny_entry().lora_targets), init_lora_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config)
    model.save_pretrained(tmp_path / "train", save_embedding_layers=False)
    nothing = Manifest.model_construct()
    return Inputs(nothing, nothing, tmp_path, FACTS, [])


def test_a_merged_model_answers_as_base_and_adapter_do(
    inputs: Inputs, tiny_folder: Path, tmp_path: Path
) -> None:
    of = task("merged", "nf4")
    reporter = Reporter(open_store(f"file://{tmp_path}/store"), "r", "evaluate", "a")
    engines = Engines(of, inputs, tiny_folder, reporter)
    said = {}
    for arm in arms_of(of.evaluate, of.base):
        with engines.open(arm.precision) as engine:
            request = Request("x", (40, 41, 42, 43), 1, arm.adapter)
            reporter.phase("generate", 8, "steps")
            (answer,) = engine.generate([(request,)], GREEDY, reporter, Stop())
            said[arm.name] = answer.ids
    assert list(said) == ["base", "tuned", "tuned-merged", "tuned-nf4"]
    assert said["tuned-merged"] == said["tuned"] != said["base"]
    assert engines.info(arms_of(of.evaluate, of.base)[2]).precision == "16 bits, adapter merged"


def test_fp8_needs_vllm(inputs: Inputs, tiny_folder: Path, tmp_path: Path) -> None:
    reporter = Reporter(open_store(f"file://{tmp_path}/store"), "r", "evaluate", "a")
    with pytest.raises(SpecInvalid, match="transformers, which has no FP8"):
        Engines(task("fp8"), inputs, tiny_folder, reporter)
