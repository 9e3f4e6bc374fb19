"""The serving plan against engines that were measured. Cells to `check` set none of its constants.

`benchmarks/serve_memory.py` writes the file, and says what it holds.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
FILE = ROOT / "benchmarks/results/serve-memory.jsonl"
CLOSE = 0.05


def benchmark() -> ModuleType:
    """benchmarks/serve_memory.py, which is no package."""
    spec = importlib.util.spec_from_file_location(
        "serve_memory", ROOT / "benchmarks/serve_memory.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = benchmark()
CELLS = list(BENCHMARK.read_cells(FILE)) if FILE.exists() else []


@pytest.mark.skipif(not CELLS, reason="no engine has been measured yet")
@pytest.mark.parametrize("figure", ["kv_tokens", "taken_bytes"])
def test_half_of_the_cells_to_check_are_within_5_percent(figure: str) -> None:
    """`taken_bytes` is all but the KV cache: on a large GPU, tokens alone are easily right."""
    errors = []
    for cell, hardware, measured in CELLS:
        if cell.use == "check":
            work = BENCHMARK.planned_work(cell, hardware)
            predicted = BENCHMARK.prediction(work, measured["vllm"])
            errors.append(abs(predicted[figure] / measured[figure] - 1))
    assert len(errors) >= 10
    assert 2 * sum(error <= CLOSE for error in errors) >= len(errors)


@pytest.mark.parametrize("cell", BENCHMARK.CELLS, ids=str)
def test_cells_fit_the_gpu_that_they_are_made_for(cell: object) -> None:
    """A cell without room for one window fails in vLLM, and costs its time there."""
    work = BENCHMARK.planned_work(cell, "h200x1")
    predicted = BENCHMARK.prediction(work, "0.26.0")
    assert predicted["kv_tokens"] >= 1.2 * work.window
    shape = BENCHMARK.configuration(work.model)
    assert shape["num_hidden_layers"] == work.model.layers
