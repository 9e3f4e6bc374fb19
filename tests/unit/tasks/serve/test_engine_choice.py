"""Which engine serves, and what it is started with."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway import template

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import ServeTask
from thinktune.tasks.serve.engine.choose import (
    PYTHON_VARIABLE,
    Found,
    choose,
    command,
    keeps_arms_apart,
    look,
)
from thinktune.tasks.serve.gateway.keys import Keys, read_keys
from thinktune.tasks.serve.inputs import Defaults, Served

GPU = Found("/opt/python", vllm=True, script=True, capability=(9, 0), bfloat16=True)
CPU = replace(GPU, script=False, capability=None, bfloat16=False)
TASK = ServeTask(run="r", store="file:///s")
SERVED = Served(
    run="r",
    template=template(),
    stop_ids=(2,),
    weights=Path("/w"),
    adapter=Path("/a"),
    adapter_config={"r": 12},
    base="nf4",
    dtype="auto",
    window=1000,
    defaults=Defaults(0.6, 0.95, None),
    judged="",
)


@pytest.mark.parametrize(
    ("wanted", "found", "kind", "reason"),
    [
        ("auto", GPU, "vllm", "it is installed"),
        ("auto", CPU, "vllm", "it is installed"),
        ("auto", replace(GPU, vllm=False), "transformers", "vLLM is not installed here"),
        ("auto", replace(GPU, capability=(7, 5)), "transformers", "compute capability 7.5"),
        ("vllm", replace(GPU, capability=(7, 5)), "vllm", "asked for"),
        ("transformers", GPU, "transformers", "asked for"),
    ],
)
def test_the_choice(wanted: Any, found: Found, kind: str, reason: str) -> None:
    chosen = choose(wanted, found)
    assert chosen.kind == kind and reason in chosen.reason


def test_vllm_where_there_is_none() -> None:
    with pytest.raises(SpecInvalid, match="/opt/python has no vLLM") as error:
        choose("vllm", replace(GPU, vllm=False))
    assert PYTHON_VARIABLE in error.value.remedy


def test_vllm_on_a_gpu_is_its_own_command() -> None:
    arguments = command(choose("auto", GPU), SERVED, TASK, 1234).arguments
    assert arguments[:4] == ("/opt/python", "/opt/vllm", "serve", "/w")
    for expected in (
        "--host=127.0.0.1",
        "--port=1234",
        "--dtype=bfloat16",
        "--quantization=bitsandbytes",
        "--max-lora-rank=16",
        "--lora-modules=r=/a",
        "--max-model-len=1000",
    ):
        assert expected in arguments
    assert not keeps_arms_apart(choose("auto", GPU))
    half = replace(GPU, bfloat16=False)
    assert "--dtype=float16" in command(choose("auto", half), SERVED, TASK, 1).arguments


def test_vllm_on_a_cpu_is_a_module_and_keeps_the_arms_apart() -> None:
    made = command(choose("auto", CPU), SERVED, TASK, 1)
    assert made.arguments[:4] == (
        "/opt/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model=/w",
    )
    assert "--dtype=bfloat16" in made.arguments  # its 4-bit weights compute in 16 bits alone
    assert "--enforce-eager" in made.arguments
    plain = command(choose("auto", CPU), replace(SERVED, base="16bit"), TASK, 1)
    assert "--dtype=float32" in plain.arguments
    assert not [each for each in plain.arguments if "quantization" in each]
    assert keeps_arms_apart(choose("auto", CPU))


def test_transformers_get_the_precision_that_was_judged() -> None:
    made = command(choose("transformers", CPU), SERVED, TASK, 5)
    assert made.arguments[0] == sys.executable
    settings = json.loads(made.arguments[-1])
    assert (settings["base"], settings["dtype"], settings["port"]) == ("nf4", "auto", 5)


def test_what_is_there_is_asked_of_the_python_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    facts = {"vllm": True, "script": False, "capability": [8, 6], "bfloat16": True}
    said = json.dumps({"python": "/the/python", **facts})
    python.write_text(f"#!/bin/sh\necho '{said}'\n")
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    assert asyncio.run(look()) == Found("/the/python", True, False, (8, 6), True)
    python.write_text("#!/bin/sh\nexit 1\n")
    assert asyncio.run(look()).vllm is False
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(SpecInvalid, match="cannot be run"):
        asyncio.run(look())


def test_keys_of_a_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n\n  two \n")
    keys = read_keys(TASK.model_copy(update={"key_file": str(path)}))
    assert keys.allow("Bearer one") and keys.allow("bearer two")
    assert not keys.allow("Bearer three") and not keys.allow(None) and not keys.allow("one")
    monkeypatch.setenv("THINKTUNE_API_KEY", "three")
    assert read_keys(TASK).allow("Bearer three")
    assert not read_keys(TASK).any  # taken out of the environment
    assert Keys([]).allow(None)


@pytest.mark.parametrize("text", [None, "", "\n \n"])
def test_a_file_without_a_key(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecInvalid, match="--key-file"):
        read_keys(TASK.model_copy(update={"key_file": str(path)}))


def test_an_address_that_others_reach_needs_a_key() -> None:
    with pytest.raises(SpecInvalid, match="others can reach the server") as error:
        read_keys(TASK.model_copy(update={"host": "0.0.0.0"}))
    assert "--key-file" in error.value.remedy
