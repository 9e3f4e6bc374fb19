"""Everything measured on one GPU: kernels, training steps against the plain forms, losses.

    make bench-gpu          # or: python benchmarks/gpu.py --output figures.json

One JSON file and one table. A case that fails says so and the others go on; the exit status is then
1. Takes about ten minutes on an H100.
"""

import argparse
import gc
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitsandbytes
import fp8_loss
import kernel_times
import peft
import torch
import transformers
import triton
from train import Case, measure

SMALL, MIDDLE, LARGE = "r1-distill-qwen-1.5b", "r1-distill-llama-8b", "r1-distill-qwen-32b"
CASES = [
    Case(SMALL, "padded", row_tokens=4096, batch_size=16, steps=5),
    Case(SMALL, "plain", batch_size=32),
    Case(SMALL),
    Case(SMALL, fp8=True),
    Case(SMALL, row_tokens=8192, recompute=8, recompute_mlps=20),
    Case(MIDDLE, "padded", row_tokens=4096, batch_size=16, steps=5),
    Case(MIDDLE, "plain", row_tokens=8192, recompute=32, batch_size=16),
    Case(MIDDLE, batch_size=32),
    Case(MIDDLE, batch_size=32, fp8=True),
    Case(MIDDLE, row_tokens=8192, recompute=18, recompute_mlps=14, batch_size=32),
    Case(LARGE, "plain", row_tokens=8192, recompute=64, batch_size=8, steps=5),
    Case(LARGE, row_tokens=8192, recompute_mlps=36, batch_size=24),
    Case(LARGE, row_tokens=8192, recompute_mlps=36, batch_size=24, fp8=True),
    Case(LARGE, row_tokens=8192, recompute=42, recompute_mlps=22, batch_size=24),
]
SHOWN = ("model", "path", "fp8", "row_tokens", "recompute", "recompute_mlps", "tokens_per_s")
MEMORY = ("allocated_gib", "reserved_gib", "share_of_peak_4n", "share_of_peak_6n")


def main() -> int:
    """Runs all or the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("bench-gpu.json"))
    parser.add_argument("--only", choices=["kernels", "train", "losses"], help="one part")
    parser.add_argument("--cases", help="numbers of the cases to run, as 0,2,5")
    parser.add_argument("--seed", type=int, default=0, help="of the documents' lengths")
    parser.add_argument("--steps", type=int, help="per case, instead of its own number")
    options = parser.parse_args()
    found: dict[str, Any] = {"about": about(), "kernels": [], "train": [], "losses": None}
    failed = False
    if options.only in (None, "kernels"):
        failed |= not _part(lambda: found.update(kernels=kernel_times.rows()))
        write_table(found["kernels"], ("kernel", "ms", "torch_ms", "ratio"))
    if options.only in (None, "train"):
        chosen = [CASES[int(n)] for n in options.cases.split(",")] if options.cases else CASES
        for case in chosen:
            changed = replace(case, seed=options.seed, steps=options.steps or case.steps)
            failed |= not _part(lambda case=changed: found["train"].append(measure(case)))
        write_table(found["train"], SHOWN + MEMORY)
    if options.only in (None, "losses"):
        failed |= not _part(lambda: found.update(losses=fp8_loss.compare()))
        sys.stdout.write(json.dumps(found["losses"]) + "\n")
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {options.output}\n")
    return int(failed)


def _part(work: Callable[[], Any]) -> bool:
    """Whether it went well; one part must not cost the others."""
    try:
        work()
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return True


def about() -> dict[str, str]:
    """What it ran on."""
    modules = (torch, transformers, peft, bitsandbytes, triton)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        **{module.__name__: str(module.__version__) for module in modules},
    }


def write_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """In GitHub's form, on stdout."""
    lines = [columns, tuple("---" for _ in columns)]
    lines += [tuple(str(row[name]) for name in columns) for row in rows]
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
