"""Models of the catalog's shapes with random weights, and documents of random tokens.

Speed and memory depend on shapes and lengths alone. Weights are made and quantized on the GPU, one
layer at a time, so that the 16-bit model never stands whole.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from thinktune.schema.catalog import ModelEntry

if TYPE_CHECKING:
    from thinktune.tasks.train.sft.examples import TrainExample

MEAN_TOKENS, MAX_TOKENS, SIGMA = 1000, 4096, 0.8
"""Of the documents' lengths: lognormal, cut off."""


def documents(count: int, vocabulary: int, seed: int = 0) -> "list[TrainExample]":
    """Random tokens; the first tenth of each is prompt."""
    from thinktune.tasks.train.sft.examples import TrainExample  # needs pyarrow

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
                setattr(layer.get_submodule(parent), child, quantized(linear, device))
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


class RandomWeights:
    """What `parallel_load.from_weights` reads, made up: by name, for a model of this shape."""

    def __init__(self, config: PretrainedConfig) -> None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        self.shapes = {name: p.shape for name, p in model.named_parameters()}

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> torch.Tensor:
        """On the GPU, where randomness is quick."""
        shape, device = self.shapes[name], "cuda" if torch.cuda.is_available() else "cpu"
        if "norm" in name:
            return torch.ones(shape, dtype=torch.bfloat16, device=device)
        return torch.randn(shape, dtype=torch.bfloat16, device=device) * 0.02


def quantized(linear: torch.nn.Linear, device: torch.device) -> Linear4bit:
    """A 4-bit layer of the same shape with random weights."""
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


def linears(model: torch.nn.Module) -> list[torch.Tensor]:
    """Weights that take part in matrix products, as shapes: 4-bit ones unpacked."""
    found = []
    for module in model.modules():
        if isinstance(module, Linear4bit):
            found.append(torch.empty(module.out_features, module.in_features, device="meta"))
    return found
