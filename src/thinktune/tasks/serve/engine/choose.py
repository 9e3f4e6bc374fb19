"""Which engine serves, and the command that starts it.

vLLM may be installed in a Python of its own, which THINKTUNE_VLLM_PYTHON names. That Python is
asked once what there is: this process loads neither vLLM nor torch.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thinktune.schema.engines import LEAST_CAPABILITY
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.recipe import EngineChoice, EngineName
from thinktune.schema.serve import BASE_MODEL, ServeTask
from thinktune.schema.serving import vllm_arguments, vllm_environment
from thinktune.tasks.runtime.trained import Dtype
from thinktune.tasks.serve.adapter_check import rank_setting, read_config
from thinktune.tasks.serve.inputs import Served

PYTHON_VARIABLE = "THINKTUNE_VLLM_PYTHON"
PROBE = """
import importlib.util, json, sys, torch
from importlib.metadata import distributions
print(json.dumps({
    "python": sys.executable,
    "vllm": importlib.util.find_spec("vllm") is not None,
    "script": any(d.name == "vllm" for d in distributions()),
    "capability": torch.cuda.get_device_capability() if torch.cuda.is_available() else None,
    "bfloat16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(False),
}))
"""
FORMS = '{"backend": "guidance", "disable_any_whitespace": true}'
CPU_WINDOWS = 4
"""Full windows that vLLM's KV cache holds on a CPU, where nothing else says its size."""
MOST_SEQUENCES, MEMORY_SHARE = 256, 0.9


@dataclass(frozen=True)
class Found:
    """What the Python that is to run vLLM has."""

    python: str
    vllm: bool
    script: bool
    """Whether the command `vllm` works. It looks for a package of that name, which the one for
    CPUs has not."""
    capability: tuple[int, int] | None
    """That of the GPU; None where there is none."""
    bfloat16: bool


@dataclass(frozen=True)
class Chosen:
    """An engine, and why that one."""

    kind: EngineName
    reason: str
    found: Found


@dataclass(frozen=True)
class Command:
    """How an engine is started."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


async def look() -> Found:
    """What there is on this machine. Loading torch takes seconds."""
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-c", PROBE, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        fault = f"{python} cannot be run ({error.strerror})"
        raise SpecInvalid(PYTHON_VARIABLE, fault, "name a Python that has vLLM") from None
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:  # no torch
        return Found(python, vllm=False, script=False, capability=None, bfloat16=False)
    facts: dict[str, Any] = json.loads(said)
    capability = facts["capability"]
    return Found(
        facts["python"],
        vllm=facts["vllm"],
        script=facts["script"],
        capability=tuple(capability) if capability else None,
        bfloat16=facts["bfloat16"],
    )


def choose(wanted: EngineChoice, found: Found) -> Chosen:
    """Raises SpecInvalid where vLLM is wanted and not there, or neither engine is."""
    if wanted == "vllm" and not found.vllm:
        fault = f"{found.python} has no vLLM"
        remedy = f"install thinktune[vllm], name its Python in {PYTHON_VARIABLE}, or leave it out"
        raise SpecInvalid("--engine vllm", fault, remedy)
    if wanted == "vllm":
        return Chosen("vllm", "asked for", found)
    if wanted == "transformers":
        return _of_transformers("asked for", found)
    if not found.vllm:
        return _of_transformers("vLLM is not installed here", found)
    if found.capability is not None and found.capability < LEAST_CAPABILITY:
        of_gpu = ".".join(map(str, found.capability))
        return _of_transformers(f"the GPU has compute capability {of_gpu}", found)
    return Chosen("vllm", "it is installed", found)


def _of_transformers(reason: str, found: Found) -> Chosen:
    missing = [name for name in ("torch", "peft", "bitsandbytes") if find_spec(name) is None]
    if missing:
        fault = f"neither vLLM is installed here nor {missing[0]}, which transformers needs"
        remedy = f"pip install 'thinktune[evaluate]', or name vLLM's Python in {PYTHON_VARIABLE}"
        raise InputMissing("thinktune serve", fault, remedy)
    return Chosen("transformers", reason, found)


def keeps_arms_apart(chosen: Chosen) -> bool:
    """Whether requests of the base model must not run beside requests with an adapter: vLLM on a
    CPU applies the adapter to those as well (0.32)."""
    return chosen.kind == "vllm" and chosen.found.capability is None


def command(
    chosen: Chosen,
    served: Served,
    task: ServeTask,
    port: int,
    adapters: Mapping[str, Path] | None = None,
) -> Command:
    """How the chosen engine is started on that port of the loopback, with adapters by name; the
    run's own, where none are given."""
    adapters = adapters or {served.run: served.adapter}
    if chosen.kind == "transformers":
        return _transformers(served, task, port, adapters)
    found = chosen.found
    on_gpu = found.capability is not None
    arguments = [
        *_entry(found),
        *(str(served.weights) if found.script else f"--model={served.weights}",),
        f"--served-model-name={BASE_MODEL}",
        "--host=127.0.0.1",
        f"--port={port}",
        # The release's own sampling settings would mix with the request's.
        "--generation-config=vllm",
        *_engine_arguments(served, task, found, adapters),
        # One that is loaded has a place beside those that it replaces.
        f"--max-cpu-loras={task.adapters + 2}",
        *_lora_modules(adapters),
        *_one_front_end(task, on_gpu),
        "--seed=0",
        "--disable-uvicorn-access-log",
        # Otherwise a small model fills its answer with the white space that JSON allows.
        f"--structured-outputs-config={FORMS}",
    ]
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # FlashInfer's sampler is compiled at its first use, for which an image has no compiler.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(task.times.start_s)),
        "VLLM_CPU_KVCACHE_SPACE": str(_cpu_cache_gib(served)),
    }
    if task.execution is not None and on_gpu:
        environment |= vllm_environment(task.execution)
    if task.desired_file is not None:
        # Opens paths without a key too: on the loopback, where only the gateway is.
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return Command(tuple(arguments), environment)


def _one_front_end(task: ServeTask, on_gpu: bool) -> list[str]:
    """vLLM starts one for each copy of the model otherwise, and refuses to, because an adapter
    that is loaded while it serves would reach one of them alone."""
    copies = task.execution.data_parallel if task.execution is not None and on_gpu else 1
    return ["--api-server-count=1"] if copies > 1 and task.desired_file is not None else []


def _lora_modules(adapters: Mapping[str, Path]) -> list[str]:
    """One option: the second of two would replace the first."""
    words = [f"{name}={folder}" for name, folder in adapters.items()]
    return [f"--lora-modules={words[0]}"] if len(words) == 1 else ["--lora-modules", *words]


def _engine_arguments(
    served: Served, task: ServeTask, found: Found, adapters: Mapping[str, Path]
) -> list[str]:
    """What decides memory, speed and precision: as planned, or as this machine allows."""
    on_gpu = found.capability is not None
    if task.execution is not None and on_gpu:
        return list(vllm_arguments(task.execution))
    arguments = [
        f"--dtype={_dtype(served, found)}",
        f"--max-model-len={served.window}",
        f"--max-num-seqs={min(MOST_SEQUENCES, task.limits.requests)}",
        "--enable-lora",
        f"--max-loras={task.adapters}",
        f"--max-lora-rank={_rank_of_all(served, adapters)}",
    ]
    if served.base == "nf4":
        arguments.append("--quantization=bitsandbytes")
    arguments += [f"--gpu-memory-utilization={MEMORY_SHARE}"] if on_gpu else ["--enforce-eager"]
    return arguments


def _rank_of_all(served: Served, adapters: Mapping[str, Path]) -> int:
    """Each place for an adapter has the same rank: that of the widest one."""
    others = [read_config(folder) for folder in adapters.values() if folder != served.adapter]
    return max(map(rank_setting, [served.adapter_config, *others]))


def _entry(found: Found) -> tuple[str, ...]:
    if found.script:
        return found.python, str(Path(found.python).parent / "vllm"), "serve"
    return found.python, "-m", "vllm.entrypoints.openai.api_server"


def _dtype(served: Served, found: Found) -> Dtype:
    """As `tasks.model.base.compute_dtype`, of the Python that is to run vLLM."""
    if found.capability is None:
        dtype: Dtype = served.dtype if served.dtype != "auto" else "float32"
        # Its 4-bit weights compute in 16 bits alone.
        return "bfloat16" if served.base == "nf4" and dtype == "float32" else dtype
    if served.dtype != "auto":
        return served.dtype
    return "bfloat16" if found.bfloat16 else "float16"


def _cpu_cache_gib(served: Served) -> int:
    model = served.template.model
    per_token = 2 * model.layers * model.kv_heads * model.head_size * 4
    return max(1, -(-CPU_WINDOWS * served.window * per_token // (1 << 30)))


def _transformers(
    served: Served, task: ServeTask, port: int, adapters: Mapping[str, Path]
) -> Command:
    settings = {
        "weights": str(served.weights),
        "adapters": {name: str(folder) for name, folder in adapters.items()},
        "base": served.base,
        "dtype": served.dtype,
        "window": served.window,
        "port": port,
        "requests": task.limits.requests,
    }
    module = "thinktune.tasks.serve.engine.transformers_server"
    arguments = (sys.executable, "-m", module, json.dumps(settings))
    return Command(arguments, {})
