"""Names of models that change while requests run, and the engine's command that follows from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from gateway import template

from thinktune.schema.serve import BASE_MODEL, ServeTask
from thinktune.schema.served import Desired, DesiredRun
from thinktune.schema.serving import ServeExecution
from thinktune.tasks.serve.engine.choose import Chosen, Found, command
from thinktune.tasks.serve.inputs import Defaults, Served
from thinktune.tasks.serve.models import Models, model_of
from thinktune.text.tokens import Encoder

GPU = Found("/venv/bin/python", vllm=True, script=True, capability=(9, 0), bfloat16=True)


def served(run: str, folder: Path) -> Served:
    return Served(
        run=run,
        template=template(),
        stop_ids=(2,),
        weights=folder,
        adapter=folder / run,
        adapter_config={"r": 8},
        base="nf4",
        dtype="auto",
        window=512,
        defaults=Defaults(0.0, 1.0, None),
        judged="",
    )


@pytest.fixture
def encoder(tokenizer_file: Path) -> Encoder:
    return Encoder(tokenizer_file)


def test_a_servers_name_leads_to_the_first_run(tmp_path: Path, encoder: Encoder) -> None:
    models = Models("shop")
    one, two = (model_of(served(run, tmp_path), f"{run}.1", encoder) for run in ("one", "two"))
    models.offer([one, two])
    assert list(models.tuned) == ["shop", "one", "two"]
    with models.ticket() as ticket:
        assert models.find("shop", ticket) is one
        assert ticket.engine_name == "one.1"
        assert models.find("two", ticket) is two
        assert models.find(BASE_MODEL, ticket) is one  # its prompts are the first run's
        assert ticket.engine_name == BASE_MODEL
        assert models.find("three", ticket) is None
    models.offer([two])
    with models.ticket() as ticket:
        assert models.find("shop", ticket) is two
        assert models.find("one", ticket) is None


def test_a_run_with_the_servers_name_does_not_take_it(tmp_path: Path, encoder: Encoder) -> None:
    models = Models("one")
    one, two = (model_of(served(run, tmp_path), f"{run}.1", encoder) for run in ("one", "two"))
    models.offer([one])
    models.offer([two, one])
    with models.ticket() as ticket:
        assert models.find("one", ticket) is two
        assert ticket.engine_name == "two.1"
    assert list(models.tuned) == ["one", "two"]


def test_an_adapter_is_in_use_until_its_last_request(tmp_path: Path, encoder: Encoder) -> None:
    models = Models("shop")
    one, two = (model_of(served(run, tmp_path), f"{run}.1", encoder) for run in ("one", "two"))
    models.offer([one])
    with models.ticket() as early, models.ticket() as slow:
        models.find("shop", early)
        models.offer([two])
        assert models.in_use("one.1")
        # Begun before the change, and not looked up yet: it might have found any.
        assert models.in_use("zero.1")
        with models.ticket():  # begun after it: it can only find what is there now
            models.find("shop", slow)
            assert not models.in_use("zero.1")
        assert models.in_use("one.1")
    assert not models.in_use("one.1")


def a_run(name: str) -> DesiredRun:
    return DesiredRun(run=name, train_sha256="0" * 64)


def test_a_promotion_keeps_those_before_as_far_as_there_are_places() -> None:
    first = Desired(revision=1, runs=(a_run("one"),))
    second = first.promoted(a_run("two"), 2)
    assert [each.run for each in second.runs] == ["two", "one"]
    third = second.promoted(a_run("three"), 2)
    assert [each.run for each in third.runs] == ["three", "two"]
    assert (third.revision, third.former and third.former.run) == (3, "two")
    back = third.promoted(a_run("two"), 2)
    assert [each.run for each in back.runs] == ["two", "three"]
    assert back.former is not None
    assert back.former.run == "three"


EXECUTION = ServeExecution(
    precision="nf4",
    quantization="bitsandbytes",
    dtype="bfloat16",
    tensor_parallel=4,
    max_model_len=32768,
    gpu_memory_utilization=0.92,
    max_num_seqs=128,
    max_num_batched_tokens=8192,
    max_loras=2,
    max_lora_rank=32,
    lora_targets=("q_proj",),
    ready_timeout_s=900,
)


def the_command(folder: Path, **changes: Any) -> tuple[str, dict[str, str]]:
    task = ServeTask(run="shop", store="file:///s", **changes)
    adapters = {"one.1": folder / "one", "two.1": folder / "two"}
    chosen = Chosen("vllm", "a test", GPU)
    found = command(chosen, served("one", folder), task, 8000, adapters)
    return " ".join(found.arguments), found.environment


def test_vllm_is_started_as_planned_with_all_adapters(tmp_path: Path) -> None:
    told, environment = the_command(
        tmp_path, execution=EXECUTION, adapters=2, server="shop", desired_file="/etc/served.json"
    )
    for each in (
        "--tensor-parallel-size 4",
        "--max-loras 2",
        "--max-lora-rank 32",
        "--host=127.0.0.1",
    ):
        assert each in told
    assert f"--lora-modules one.1={tmp_path}/one two.1={tmp_path}/two --" in told
    assert "--max-cpu-loras=4" in told  # a new one has a place beside those that it replaces
    assert environment["VLLM_ENGINE_READY_TIMEOUT_S"] == "900"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_copies_of_the_model_have_one_front_end_where_adapters_change(tmp_path: Path) -> None:
    """vLLM has one for each copy otherwise, and then refuses to start with adapters that change."""
    copies = EXECUTION.model_copy(update={"tensor_parallel": 1, "data_parallel": 4})
    changing: dict[str, Any] = {"server": "shop", "desired_file": "/etc/served.json"}
    told, _ = the_command(tmp_path, execution=copies, **changing)
    assert "--data-parallel-size 4" in told
    assert "--api-server-count=1" in told
    # A node without a front end refuses the option; there, a server is one copy.
    assert "--api-server-count" not in the_command(tmp_path, execution=EXECUTION, **changing)[0]
    assert "--api-server-count" not in the_command(tmp_path, execution=copies)[0]


def write_rank(folder: Path, rank: int) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))


def test_without_a_plan_the_widest_adapter_has_a_place(tmp_path: Path) -> None:
    write_rank(tmp_path / "two", 64)
    assert "--max-lora-rank=64" in the_command(tmp_path)[0]  # the first one's is 8


def test_adapters_of_one_run_for_good_are_not_to_be_changed(tmp_path: Path) -> None:
    write_rank(tmp_path / "two", 8)
    told, environment = the_command(tmp_path)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
    assert "--gpu-memory-utilization" in told
