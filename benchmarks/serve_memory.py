"""What vLLM's engine leaves for its KV cache, beside what the serving plan says, on one GPU.

    PYTHONPATH=src python benchmarks/serve_memory.py --python PYTHON --output serve-memory.jsonl
    PYTHONPATH=src python benchmarks/serve_memory.py --fit serve-memory.jsonl

PYTHON has vLLM, pydantic and PyYAML. Each cell is a process of its own, with weights made up by
vLLM in the shapes of the catalog, and one JSON line that is written at once. While a cell runs, the
next process imports vLLM and waits. `--fit` prints the constants that follow from the cells to fit,
and how far off the plan is on the others, which set no constant. Takes about 8 minutes on an H200.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinktune.plan.serving import memory
from thinktune.plan.serving.memory import ServeWork
from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import GIB, ModelEntry
from thinktune.schema.serving import lora_rank_setting

SMALL, SEVEN, EIGHT = "r1-distill-qwen-1.5b", "r1-distill-qwen-7b", "r1-distill-llama-8b"
FOURTEEN, LARGE = "r1-distill-qwen-14b", "r1-distill-qwen-32b"
MIXTURE, LATENT, OLD = "deepseek-coder-v2-lite", "deepseek-coder-v2", "deepseek-v3"
UNCOUNTED = ("sampling_state", "cuda_graphs")
"""Causes that vLLM does not take off before 0.32, with its second model runner."""
SHOWN = (
    "weights_bytes",
    "activation_bytes",
    "non_torch_bytes",
    "graph_bytes",
    "taken_bytes",
    "kv_tokens",
)
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}


@dataclass(frozen=True)
class Cell:
    """One engine."""

    model: str
    window: int
    share: float
    """gpu_memory_utilization."""
    use: str = "check"
    """`fit` or `check`."""
    layers: int | None = None
    """None takes all of the model's."""
    adapters: int = 0
    rank: int = 16
    sequences: int = 256
    batched_tokens: int = 8192
    kv_dtype: str = "auto"
    precision: str = "16bit"
    eager: bool = True


CELLS = (
    Cell(SMALL, 4096, 0.1, "fit"),
    Cell(EIGHT, 16384, 0.3, "fit"),
    Cell(LARGE, 32768, 0.9, "fit"),
    Cell(MIXTURE, 16384, 0.5, "fit"),
    Cell(EIGHT, 16384, 0.3, "fit", eager=False),
    Cell(SMALL, 32768, 0.3, adapters=1, rank=64),
    Cell(SEVEN, 16384, 0.2),
    Cell(EIGHT, 32768, 0.9, kv_dtype="fp8"),
    Cell(EIGHT, 16384, 0.3, adapters=4, batched_tokens=2048),
    Cell(FOURTEEN, 4096, 0.3, batched_tokens=16384),
    Cell(FOURTEEN, 16384, 0.6, adapters=1, rank=64),
    Cell(LARGE, 16384, 0.6, adapters=1, sequences=512),
    Cell(MIXTURE, 32768, 0.9, adapters=1),
    Cell(LATENT, 32768, 0.6, layers=8),
    Cell(SMALL, 16384, 0.1, adapters=1, eager=False),
    Cell(OLD, 16384, 0.9, layers=6),
    Cell(EIGHT, 16384, 0.2, precision="fp8"),
)


def main() -> int:
    """Runs the cells, or reads what they gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the Python that has vLLM")
    parser.add_argument("--output", type=Path, default=Path("serve-memory.jsonl"))
    parser.add_argument("--hardware", default="h200x1", help="name in the catalog")
    parser.add_argument("--cell", action="append", help="a cell as JSON, instead of all")
    parser.add_argument("--timeout", type=int, default=150, help="seconds for one cell")
    parser.add_argument("--deadline", type=int, default=540, help="seconds for all of them")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="read what was measured")
    parser.add_argument("--engine", action="store_true", help="for a process that this one starts")
    given = parser.parse_args()
    if given.engine:
        _engine()
        return 0
    if given.fit:
        return _fit(given.fit)
    return _run(given)


def _run(given: argparse.Namespace) -> int:
    cells = [Cell(**json.loads(text)) for text in given.cell or ()] or list(CELLS)
    began, failed = time.monotonic(), 0
    waiting: subprocess.Popen[str] | None = _start(given.python)
    try:
        for number, cell in enumerate(cells):
            left = given.deadline - (time.monotonic() - began)
            if left < 20:
                sys.stdout.write(f"no time left for {len(cells) - number} cells\n")
                return 1
            running, waiting = waiting, None
            if number + 1 < len(cells):
                waiting = _start(given.python)
            assert running is not None
            found = _measure(running, cell, given.hardware, min(given.timeout, left))
            failed += "failed" in found
            line = json.dumps(found)
            with given.output.open("a", encoding="utf-8") as output:
                output.write(line + "\n")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    finally:
        if waiting is not None:
            waiting.kill()
    return int(failed > 0)


def _start(python: str) -> subprocess.Popen[str]:
    """A process that imports vLLM, and then waits for its cell on stdin."""
    source = str(Path(__file__).parents[1] / "src")
    environment = os.environ | {
        "PYTHONPATH": source,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker is asked for its own figures
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.Popen(
        [python, __file__, "--engine"],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _measure(
    process: subprocess.Popen[str], cell: Cell, hardware: str, timeout: float
) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(configuration(_model(cell))), encoding="utf-8")
        work = planned_work(cell, hardware)
        order = json.dumps({"folder": folder, "cell": asdict(cell), "targets": work.targets})
        late = threading.Timer(timeout, process.kill)
        late.start()
        said, _ = process.communicate(order + "\n")
        late.cancel()
    found: dict[str, Any] = {**asdict(cell), "hardware": hardware}
    found["whole_s"] = round(time.monotonic() - began, 1)
    figures = [line for line in said.splitlines() if line.startswith("FIGURES ")]
    if not figures:
        return found | {"failed": f"exit code {process.returncode}", "said": said[-3000:]}
    measured = json.loads(figures[-1].removeprefix("FIGURES "))
    graphs = re.findall(r"Graph capturing finished in .* took ([0-9.]+) GiB", said)
    measured["graph_bytes"] = round(float(graphs[-1]) * GIB) if graphs else 0
    predicted = prediction(work, measured["vllm"])
    return found | {
        "measured": measured,
        "predicted": predicted,
        "errors": errors(predicted, measured),
    }


def errors(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, float]:
    """By how much a prediction is off, as a share of what was measured."""
    known = [name for name in SHOWN if measured[name]]
    return {name: round(predicted[name] / measured[name] - 1, 4) for name in known}


def _model(cell: Cell) -> ModelEntry:
    entry = load_catalog().models[cell.model]
    return entry if cell.layers is None else entry.model_copy(update={"layers": cell.layers})


def planned_work(cell: Cell, hardware: str) -> ServeWork:
    """The cell as the plan sees it."""
    model = _model(cell)
    return ServeWork(
        model=model,
        hardware=load_catalog().hardware[hardware],
        precision=cell.precision,  # type: ignore[arg-type]
        window=cell.window,
        sequences=cell.sequences,
        batched_tokens=cell.batched_tokens,
        adapters=cell.adapters,
        rank=lora_rank_setting(cell.rank, "rank", "take a lower one"),
        targets=model.lora_targets,
        kv_dtype=cell.kv_dtype,  # type: ignore[arg-type]
        tensor=1,
        pipeline=1,
        graphs=not cell.eager,
        share=cell.share,
    )


def prediction(work: ServeWork, version: str) -> dict[str, Any]:
    """What the plan says of a cell, by the names of what is measured, as that vLLM counts."""
    (part,) = work.parts
    causes = memory.gpu_memory(work, part)
    first_runner = work.model.architecture in memory.OLD_RUNNER
    old = tuple(int(number) for number in version.split(".")[:2]) < (0, 32)
    uncounted = UNCOUNTED if old and not first_runner else ()
    taken = sum(size for cause, size in causes.items() if cause not in uncounted)
    requested = math.ceil(memory.total_bytes(work.hardware) * memory.utilization(work))
    per_token = memory.kv_bytes_per_token(work, part)
    return {
        "total_bytes": memory.total_bytes(work.hardware),
        "weights_bytes": causes["weights"] + causes["adapters"],
        "activation_bytes": causes["activations"],
        "non_torch_bytes": causes["kernels"],
        "graph_bytes": causes["cuda_graphs"],
        "taken_bytes": taken,
        "kv_tokens": max(0, requested - taken) // per_token,
    }


def configuration(model: ModelEntry) -> dict[str, Any]:
    """The released shape, as `config.json` spells it."""
    found = {
        "architectures": [ARCHITECTURES[model.architecture]],
        "model_type": model.architecture,
        "vocab_size": model.vocabulary,
        "hidden_size": model.hidden,
        "intermediate_size": model.intermediate,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": model.tied_embeddings,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    if model.mla is None:
        return found | {"head_dim": model.head_size}
    assert model.moe is not None
    return found | {
        "q_lora_rank": model.mla.q_rank,
        "kv_lora_rank": model.mla.kv_rank,
        "qk_nope_head_dim": model.mla.qk_nope_head_size,
        "qk_rope_head_dim": model.mla.qk_rope_head_size,
        "v_head_dim": model.mla.v_head_size,
        "n_routed_experts": model.moe.experts,
        "num_experts_per_tok": model.moe.experts_per_token,
        "n_shared_experts": model.moe.shared_experts,
        "moe_intermediate_size": model.moe.expert_intermediate,
        "first_k_dense_replace": model.moe.dense_layers,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc" if model.architecture == "deepseek_v3" else "greedy",
        "scoring_func": "sigmoid" if model.architecture == "deepseek_v3" else "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
    }


def _engine() -> None:
    """In vLLM's process: waits for a cell, starts the engine, says what it took, and ends."""
    import vllm
    from vllm import LLM

    __import__("vllm.v1.engine.llm_engine")
    __import__("vllm.v1.engine.core")
    order = json.loads(sys.stdin.readline())
    cell = Cell(**order["cell"])
    adapters: dict[str, Any] = {}
    if cell.adapters:
        adapters = {
            "enable_lora": True,
            "max_loras": cell.adapters,
            "max_lora_rank": lora_rank_setting(cell.rank, "rank", "take a lower one"),
            "lora_target_modules": order["targets"],
        }
    began = time.monotonic()
    llm = LLM(
        model=order["folder"],
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        quantization="fp8" if cell.precision == "fp8" else None,
        kv_cache_dtype=cell.kv_dtype,
        max_model_len=cell.window,
        max_num_seqs=cell.sequences,
        max_num_batched_tokens=cell.batched_tokens,
        gpu_memory_utilization=cell.share,
        enforce_eager=cell.eager,
        generation_config="vllm",
        **adapters,
    )
    (found,) = llm.collective_rpc(_figures)
    cache = llm.llm_engine.vllm_config.cache_config
    found |= {
        "kv_tokens": cache.num_gpu_blocks * cache.block_size,
        "block_tokens": cache.block_size,
        "start_s": round(time.monotonic() - began, 1),
        "vllm": vllm.__version__,
    }
    sys.stdout.write("FIGURES " + json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # tearing down takes seconds


def _figures(worker: Any) -> dict[str, Any]:
    """What a worker of vLLM measured while it started, in bytes."""
    worker = getattr(worker, "worker", worker)
    snapshot = getattr(worker, "init_snapshot", None)
    requested = getattr(worker, "requested_memory", None)
    available = getattr(worker, "available_kv_cache_memory_bytes", None)
    runner = worker.model_runner
    return {
        "runner": type(runner).__module__,
        "parameter_bytes": sum(tensor.nbytes for tensor in runner.model.parameters()),
        "total_bytes": getattr(snapshot, "total_memory", None),
        "free_at_start_bytes": getattr(snapshot, "free_memory", None),
        "requested_bytes": requested,
        "weights_bytes": getattr(runner, "model_memory_usage", None),
        "activation_bytes": getattr(worker, "peak_activation_memory", None),
        "non_torch_bytes": getattr(worker, "non_torch_memory", None),
        "graph_estimate_bytes": getattr(worker, "cudagraph_memory_estimate", None),
        "available_bytes": available,
        "taken_bytes": None if requested is None else requested - available,
    }


def read_cells(file: Path) -> Iterator[tuple[Cell, str, dict[str, Any]]]:
    """The cells of a file that were measured, with their hardware and what was measured."""
    names = Cell.__dataclass_fields__
    for line in file.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        if "measured" in found:
            cell = Cell(**{name: found[name] for name in names})
            yield cell, found["hardware"], found["measured"]


def _fit(file: Path) -> int:
    """Prints constants of `plan/serving/memory.py` from the cells to fit, and by how much the plan
    is off on all of them, with the constants that it has now."""
    values: dict[str, list[float]] = {name: [] for name in ("DRIVER", "CONTEXT", "KERNEL", "GRAPH")}
    close = {"kv_tokens": 0, "taken_bytes": 0}
    checked = 0
    for cell, hardware, measured in read_cells(file):
        work = planned_work(cell, hardware)
        off = errors(prediction(work, measured["vllm"]), measured)
        kind = f"{cell.use} {cell.model} window {cell.window} share {cell.share}"
        sys.stdout.write(f"{kind}: {', '.join(f'{k} {v:+.1%}' for k, v in off.items())}\n")
        if cell.use == "fit":
            _collect(values, work, measured)
            continue
        checked += 1
        for name in close:
            close[name] += abs(off[name]) <= 0.05
    for name, found in values.items():
        if found:
            low, middle, high = min(found), statistics.median(found), max(found)
            sys.stdout.write(f"{name}_BYTES {middle:.0f} ({low:.0f} to {high:.0f})\n")
    for name, count in close.items():
        sys.stdout.write(f"{name}: {count} of {checked} cells to check within 5%\n")
    return 0


def _collect(values: dict[str, list[float]], work: ServeWork, measured: dict[str, Any]) -> None:
    total = measured["total_bytes"]
    values["DRIVER"].append(work.hardware.gpu_memory_gib * GIB - total)
    values["CONTEXT"].append(total - measured["free_at_start_bytes"])
    values["KERNEL"].append(measured["non_torch_bytes"])
    if measured["graph_bytes"]:
        (part,) = work.parts
        planned = memory.graph_bytes(work, part) / memory.GRAPH_BYTES
        values["GRAPH"].append(measured["graph_bytes"] / planned)


if __name__ == "__main__":
    raise SystemExit(main())
