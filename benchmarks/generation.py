"""How fast each engine answers, beside vLLM's own offline call for the same requests, on one GPU.

    python benchmarks/generation.py --model r1-distill-qwen-1.5b --questions 326 --tokens 1024

makes random weights of the model's shape and a random adapter of rank 16, and asks base and tuned
the same questions, each part in a process of its own. No answer ends early, so that all parts
generate the same number of tokens. Prints one JSON line a part: seconds to start, seconds and
tokens per second for each arm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from shapes import configuration

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.recipe import MERGED
from thinktune.store import open_store
from thinktune.tasks.generate import transformers
from thinktune.tasks.generate.protocol import Engine, Request, Sampling
from thinktune.tasks.generate.vllm import VllmEngine, prepare
from thinktune.tasks.model.merge import merge
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

RANK = 16
PROMPT_TOKENS = (60, 360)
"""Shortest and longest prompt; questions lie evenly between them."""


def main() -> None:
    """Runs each part, prints its figures as soon as it has them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="r1-distill-qwen-1.5b")
    parser.add_argument("--questions", type=int, default=326)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--rows", type=int, help="transformers: requests in a batch")
    parser.add_argument("--timeout", type=int, default=400, help="seconds for each part")
    parser.add_argument("--folder", type=Path, help="where the weights are, or are to be kept")
    parser.add_argument("--part", help="ENGINE:BASE, for a process that this one starts")
    parser.add_argument(
        "parts",
        nargs="*",
        default=["call:16bit", "vllm:16bit", "transformers:nf4", "packed:nf4:16:128"],
        help="ENGINE:BASE[:QUESTIONS:TOKENS]; call is vLLM's own, packed unpacks no weight; "
        "BASE merged or fp8 is vLLM on the merged model of an NF4 base",
    )
    given = parser.parse_args()
    entry = load_catalog().models[given.model]
    if given.part:
        _say("FIGURES " + json.dumps(_part(given, entry)))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="generation-"))
    if not (folder / "weights").exists():
        make = [sys.executable, __file__, "--model", given.model, "--folder", str(folder)]
        subprocess.run([*make, "--part", "weights:"], check=True)
    for part in given.parts:
        command = [sys.executable, __file__, "--folder", str(folder), "--part", part]
        for name in ("model", "questions", "tokens", "temperature", "rows"):
            if getattr(given, name) is not None:
                command += [f"--{name}", str(getattr(given, name))]
        _run(command, part, given.timeout)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _run(command: list[str], part: str, timeout: int) -> None:
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        _say(json.dumps({"part": part, "late_after_s": timeout, "said": str(late.stdout)[-600:]}))
        return
    figures = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    found: dict[str, Any] = {"part": part, "whole_s": round(time.monotonic() - began, 1)}
    if figures:
        found |= json.loads(figures[-1].removeprefix("FIGURES "))
    else:
        found |= {"code": done.returncode, "error": (done.stdout + done.stderr)[-1500:]}
    _say(json.dumps(found))


def _part(given: argparse.Namespace, entry: ModelEntry) -> dict[str, Any]:
    kind, base, *less = given.part.split(":")
    if less:
        given.questions, given.tokens = map(int, less)
    weights, adapter = given.folder / "weights", given.folder / "adapter"
    if kind == "weights":
        _make(entry, weights, adapter)
        return {}
    sampling = Sampling(
        temperature=given.temperature,
        top_p=0.95,
        max_new_tokens=given.tokens,
        stop_ids=(entry.vocabulary - 1,),
    )
    if kind == "call":
        return _own_call(weights, adapter, base, given, sampling, entry)
    engine: Engine
    window = PROMPT_TOKENS[1] + given.tokens
    if base in MERGED:
        merged, found = _merge(given.folder)
        engine = VllmEngine(
            merged,
            None,
            repo=given.model,
            base="16bit",
            dtype="auto",
            window=window,
            fp8=base == "fp8",
        )
        return found | _ours(engine, given, sampling, entry, arms=("merged",))
    if kind == "vllm":
        engine = VllmEngine(
            weights, adapter, repo=given.model, base=base, dtype="auto", window=window
        )
    else:
        if kind == "packed":
            transformers.unpack = lambda _: None
            given.rows = given.rows or 16
        engine = transformers.TransformersEngine(
            weights, adapter, entry=entry, base=base, dtype="auto", rows=given.rows
        )
    return _ours(engine, given, sampling, entry)


def _make(entry: ModelEntry, weights: Path, adapter: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(configuration(entry), dtype=torch.bfloat16)
    model.save_pretrained(weights)
    lora = LoraConfig(r=RANK, target_modules=list(entry.lora_targets), init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(adapter, save_embedding_layers=False)


def _merge(folder: Path) -> tuple[Path, dict[str, Any]]:
    merged, began = folder / "merged", time.monotonic()
    if merged.exists():
        return merged, {}
    merge(
        folder / "weights",
        folder / "adapter",
        merged,
        base="nf4",
        dtype=torch.bfloat16,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        beat=lambda: None,
    )
    return merged, {"merge_s": round(time.monotonic() - began, 1)}


def _requests(given: argparse.Namespace, entry: ModelEntry, arm: str) -> list[Request]:
    low, high = PROMPT_TOKENS
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(given.questions):
        length = low + (high - low) * number // given.questions
        ids = torch.randint(entry.vocabulary // 2, (length,), generator=generator).tolist()
        found.append(Request(f"{arm}/{number}", tuple(ids), number, arm == "tuned"))
    return found


def _ours(
    engine: Engine,
    given: argparse.Namespace,
    sampling: Sampling,
    entry: ModelEntry,
    *,
    arms: tuple[str, ...] = ("base", "tuned"),
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        reporter = Reporter(open_store(f"file://{folder}"), "r", "evaluate", "a")
        stop = Stop()

        def ask(requests: list[Request], limits: Sampling) -> Iterator[int]:
            batches = engine.batches(requests, limits)
            reporter.phase("generate", engine.work(batches, limits), engine.unit)
            for answer in engine.generate(batches, limits, reporter, stop):
                yield len(answer.ids)

        few = sampling.model_copy(update={"max_new_tokens": 8})
        began = time.monotonic()
        for arm in arms:
            list(ask(_requests(given, entry, arm)[:8], few))
        found: dict[str, Any] = {"start_s": round(time.monotonic() - began, 1)}
        for arm in arms:
            began = time.monotonic()
            tokens = sum(ask(_requests(given, entry, arm), sampling))
            found |= _rate(arm, tokens, time.monotonic() - began)
        engine.close()
    if kept := torch.cuda.max_memory_allocated():
        found["peak_gib"] = round(kept / 2**30, 1)
    return found


def _own_call(
    weights: Path,
    adapter: Path,
    base: str,
    given: argparse.Namespace,
    sampling: Sampling,
    entry: ModelEntry,
) -> dict[str, Any]:
    """`vllm.LLM(...).generate(...)` as its documentation writes it."""
    prepare(os.environ)
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    began = time.monotonic()
    llm = LLM(
        model=str(weights),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        quantization="bitsandbytes" if base == "nf4" else None,
        max_model_len=PROMPT_TOKENS[1] + given.tokens,
        enable_lora=True,
        max_lora_rank=RANK,
        generation_config="vllm",
    )

    def ask(requests: list[Request], tokens: int) -> int:
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=tokens,
                seed=request.seed,
                stop_token_ids=list(sampling.stop_ids),
                detokenize=False,
            )
            for request in requests
        ]
        lora = LoRARequest("tuned", 1, str(adapter)) if requests[0].adapter else None
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        outputs = llm.generate(prompts, params, lora_request=lora, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    for arm in ("base", "tuned"):
        ask(_requests(given, entry, arm)[:8], 8)
    found: dict[str, Any] = {"start_s": round(time.monotonic() - began, 1)}
    for arm in ("base", "tuned"):
        began = time.monotonic()
        tokens = ask(_requests(given, entry, arm), sampling.max_new_tokens)
        found |= _rate(arm, tokens, time.monotonic() - began)
    return found


def _rate(arm: str, tokens: int, seconds: float) -> dict[str, Any]:
    return {
        f"{arm}_tokens": tokens,
        f"{arm}_s": round(seconds, 2),
        f"{arm}_tokens_per_s": round(tokens / seconds),
    }


if __name__ == "__main__":
    main()
