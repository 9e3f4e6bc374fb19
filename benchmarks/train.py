"""Whole training steps of real shapes on one GPU: tokens per second and peak memory.

    python benchmarks/train.py --model r1-distill-llama-8b --row-tokens 16384 --recompute 0

Weights are random (speed and memory depend on shapes alone); documents are lognormal with mean
1,000 and at most 4,096 tokens; only real tokens are counted. Each step is the product's own: data,
forward, backward, clipping, optimizer. Prints one JSON object per configuration.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from thinktune.spec.catalog import ModelEntry
from thinktune.spec.compose import load_catalog
from thinktune.spec.recipe import TrainSpec
from thinktune.spec.task import Execution, TrainTask
from thinktune.store import open_store
from thinktune.tasks.entry import Context
from thinktune.tasks.progress import Reporter
from thinktune.tasks.stopping import Stop
from thinktune.tasks.train import fused
from thinktune.tasks.train.adapter import add_adapter
from thinktune.tasks.train.attention import choose_attention
from thinktune.tasks.train.checkpoint import Checkpoints, Identity
from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.loop import Data, Loop
from thinktune.tasks.train.loss import PlainLoss
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.stage import choose_path, recompute_layers

MEAN_TOKENS, MAX_TOKENS, SIGMA = 1000, 4096, 0.8
WARMUP = 3


def documents(count: int, vocabulary: int, seed: int = 0) -> list[TrainExample]:
    """Random tokens; the first tenth of each is prompt."""
    draw = np.random.default_rng(seed)
    mu = np.log(MEAN_TOKENS) - SIGMA**2 / 2
    lengths = np.clip(draw.lognormal(mu, SIGMA, count), 16, MAX_TOKENS).astype(int)
    return [
        TrainExample(
            str(n), draw.integers(0, vocabulary, length).astype(np.int32), max(1, length // 10)
        )
        for n, length in enumerate(lengths)
    ]


def configuration(entry: ModelEntry) -> PretrainedConfig:
    """The released shape, as transformers spells it."""
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[entry.architecture]
    return kind(
        vocab_size=entry.vocabulary,
        hidden_size=entry.hidden,
        intermediate_size=entry.intermediate,
        num_hidden_layers=entry.layers,
        num_attention_heads=entry.heads,
        num_key_value_heads=entry.kv_heads,
        head_dim=entry.head_size,
        max_position_embeddings=entry.context,
        tie_word_embeddings=entry.tied_embeddings,
        rms_norm_eps=1e-5,
    )


def random_base(entry: ModelEntry, attention: str) -> PreTrainedModel:
    """The shape with random weights, built layer by layer so that 16 bits never stand whole."""
    device = torch.device("cuda")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            configuration(entry), dtype=torch.bfloat16, attn_implementation=attention
        )
    torch.set_default_dtype(torch.float32)
    for layer in model.model.layers:
        for name, linear in list(layer.named_modules()):
            if isinstance(linear, torch.nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(layer.get_submodule(parent), child, _quantised(linear, device))
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type == "meta":
            values = torch.randn(parameter.shape, dtype=torch.bfloat16, device=device) * 0.02
            values = torch.ones_like(values) if "norm" in name else values
            parent, _, child = name.rpartition(".")
            module = model.get_submodule(parent)
            setattr(module, child, torch.nn.Parameter(values, requires_grad=False))
    model.tie_weights()
    rotary = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config=model.config).to(device)
    return model.requires_grad_(False)


def _quantised(linear: torch.nn.Linear, device: torch.device) -> Linear4bit:
    bias = linear.bias is not None
    with torch.device("meta"):
        packed = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=bias,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
        )
    values = torch.randn(linear.weight.shape, dtype=torch.bfloat16, device=device) * 0.02
    weight = Params4bit(values, requires_grad=False, compress_statistics=True, quant_type="nf4")
    packed.weight = weight.to(device)
    if bias:
        zeros = torch.zeros(linear.out_features, dtype=torch.bfloat16, device=device)
        packed.bias = torch.nn.Parameter(zeros, requires_grad=False)
    return packed


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Runs the steps and gives the figures."""
    entry = load_catalog().models[options.model]
    device, dtype = torch.device("cuda"), torch.bfloat16
    spec = TrainSpec(batch_size=options.batch_size, rank=options.rank, epochs=1000)
    execution = Execution(micro_batch_tokens=options.row_tokens, recompute_layers=options.recompute)
    task = TrainTask(
        run="benchmark",
        store=f"file://{tempfile.mkdtemp()}",
        model_name=options.model,
        model=entry,
        train=spec,
        execution=execution,
    )
    began = time.monotonic()
    base = random_base(entry, choose_attention(device, dtype))
    recompute_layers(base, options.recompute)
    model = add_adapter(base, spec, entry)
    store = open_store(task.store)
    context = Context(store, "a", Reporter(store, "b", "train", "a", quiet=True), Stop())
    accelerator = Accelerator()
    metrics = Metrics(Path(tempfile.mkdtemp()) / "metrics.jsonl", accelerator)
    checkpoints = Checkpoints(context, Identity("b", {}, "0" * 64), 2)
    data = Data(documents(options.batch_size * 8, entry.vocabulary), [])
    plain = options.path == "plain"
    if not plain and (reason := fused.why_not(model, dtype, 0)) is not None:
        raise SystemExit(f"no fused path: {reason}")
    row_loss = PlainLoss(model, dtype) if plain else choose_path(model, task, dtype, context)
    loop = Loop(
        task,
        context,
        accelerator,
        model,
        data,
        checkpoints,
        metrics,
        row_loss=row_loss,
        dtype=dtype,
    )
    loaded = time.monotonic() - began
    torch.cuda.reset_peak_memory_stats()
    for step in range(WARMUP + options.steps):
        torch.cuda.synchronize()
        loop.step(step)
    torch.cuda.synchronize()
    rows = metrics.rows()[WARMUP:]
    if options.profile:
        with torch.profiler.profile() as profiler:
            loop.step(WARMUP + options.steps)
            torch.cuda.synchronize()
        averages = profiler.key_averages()
        sys.stderr.write(
            averages.table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=60)
        )
    rate = statistics.median(float(row["tokens_per_s"] or 0) for row in rows)
    peak = load_peak(torch.cuda.get_device_name())
    gemms = sum(p.numel() for p in linears(model))
    return {
        "model": options.model,
        "path": options.path,
        "row_tokens": options.row_tokens,
        "recompute_layers": options.recompute,
        "batch_size": options.batch_size,
        "rank": options.rank,
        "tokens_per_s": round(rate),
        "allocated_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "share_of_peak_4n": round(4 * gemms * rate / peak, 3),
        "share_of_peak_6n": round(6 * gemms * rate / peak, 3),
        "load_s": round(loaded, 1),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def linears(model: torch.nn.Module) -> list[torch.Tensor]:
    """Weights that take part in matrix products, as shapes: 4-bit ones unpacked."""
    found = []
    for module in model.modules():
        if isinstance(module, Linear4bit):
            found.append(torch.empty(module.out_features, module.in_features, device="meta"))
    return found


def load_peak(name: str) -> float:
    """Dense bf16 peak of this GPU in FLOP/s, from the catalog."""
    for entry in load_catalog().hardware.values():
        if entry.gpu != "none" and entry.gpu.split("-")[0] in name:
            return entry.bf16_tflops * 1e12
    return float("nan")


def main() -> None:
    """One configuration from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="r1-distill-qwen-1.5b")
    parser.add_argument("--path", choices=["fused", "plain"], default="fused")
    parser.add_argument("--row-tokens", type=int, default=16384)
    parser.add_argument("--recompute", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument(
        "--profile", action="store_true", help="kernels of one more step, on stderr"
    )
    parser.add_argument("--steps", type=int, default=10)
    sys.stdout.write(json.dumps(measure(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()
