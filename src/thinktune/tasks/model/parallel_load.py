"""Loads a model on several ranks in parallel, quantizing it on the way, one layer at a time.

Called by `load`. Each rank reads a layer of its own from its memory-mapped safetensors and
quantizes it on its device; then the packed bytes go to the other ranks, all of them or each rank's
part (`sharded`, ZeRO-3). No rank ever holds more than one matrix in 16 bits, the node's page cache
holds the files once, and each of N ranks does 1/N of the work. The bytes are those of transformers'
own quantized loading (tests/unit/tasks/model/test_parallel_load.py).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from bitsandbytes.functional import QuantState, quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from thinktune.schema.errors import InputMissing
from thinktune.tasks.model.base import Base, keep_weights_packed
from thinktune.tasks.model.sharded import ByteRange, ShardedBase, lay_out

BLOCK, SCALES_PER_BLOCK = 64, 256
"""Weights per scale, and scales per second scale: bitsandbytes' defaults."""


class Weights(Protocol):
    """Tensors by the names of a released checkpoint."""

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str) -> torch.Tensor:
        """The tensor of that name."""


class Files:
    """The tensors of a released checkpoint, mapped from its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        index = folder / "model.safetensors.index.json"
        self._files: dict[str, Path] = {}
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._files = {name: folder / file for name, file in names.items()}
        else:
            for path in folder.glob("*.safetensors"):
                with safe_open(path, framework="pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> torch.Tensor:
        """As `Weights.read`."""
        if name not in self._files:
            raise InputMissing(str(self._folder), f"no tensor {name}", "fetch the model again")
        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor


def load_in_parallel(
    folder: Path,
    base: Base,
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention: str,
    divided: bool,
) -> tuple[PreTrainedModel, ShardedBase | None]:
    """As `base.load_base`, on every rank; with `divided`, each rank keeps only its part of each
    layer. Every rank calls it."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    weights = Files(folder)
    return from_weights(config, weights, base, dtype, device, attention=attention, divided=divided)


def from_weights(
    config: PretrainedConfig,
    weights: Weights,
    base: Base,
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention: str,
    divided: bool,
) -> tuple[PreTrainedModel, ShardedBase | None]:
    """`load_in_parallel`, with the weights from anywhere."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.eval()
    codes = _codes(device) if base == "nf4" else None
    layers = model.model.layers
    linears = [_linears(layer) for layer in layers]
    tensors = [_kept(linear, codes, dtype) for linear in linears[0].values()]
    ranges = lay_out([tensor for kept in tensors for tensor in kept])
    size = ranges[-1].start + ranges[-1].bytes
    sharded = ShardedBase(len(layers), size, device) if divided else None
    whole_bytes = sharded.slots[0].numel() if sharded else size
    ranks, rank = dist.get_world_size(), dist.get_rank()
    for first in range(0, len(layers), ranks):
        # Every rank works on a layer of its own, then all of them are distributed.
        own = torch.zeros(whole_bytes, dtype=torch.uint8, device=device)
        if (number := first + rank) < len(layers):
            prefix = f"model.layers.{number}"
            _fill(own, linears[number], prefix, weights, codes, ranges, dtype)
        for number in range(first, min(first + ranks, len(layers))):
            whole = _distributed(own, number, number - first, sharded)
            views = iter(found.view(whole) for found in ranges)
            _put(layers[number], linears[number], views, codes, dtype)
    _load_rest(model, weights, dtype, device)
    model.requires_grad_(False)
    model.generation_config = GenerationConfig()
    keep_weights_packed(model)
    return model, sharded


def _distributed(
    own: torch.Tensor, number: int, owner: int, sharded: ShardedBase | None
) -> torch.Tensor:
    """Brings layer `number` from rank `owner`, whose `own` holds it, to every rank. Gives where its
    bytes are on this rank: all of them, or the slot in which they are gathered."""
    if sharded is not None:
        sharded.keep(own, owner)
        return sharded.slots[number % len(sharded.slots)]
    whole = own if owner == dist.get_rank() else torch.empty_like(own)
    dist.broadcast(whole, src=owner)
    return whole


def _linears(layer: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {n: m for n, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}


def _codes(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The tables of 4-bit values and of 8-bit scales."""
    _, state = quantize_4bit(
        torch.zeros(BLOCK, device=device), compress_statistics=True, quant_type="nf4"
    )
    return state.code, state.state2.code


def _kept(
    linear: torch.nn.Linear, codes: Any, dtype: torch.dtype
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types of what a linear's weight is kept as: packed, scales, scales of scales,
    their offset; or itself."""
    if codes is None:
        return [(tuple(linear.weight.shape), dtype)]
    numbers = linear.weight.numel()
    blocks = -(-numbers // BLOCK)
    outer = -(-blocks // SCALES_PER_BLOCK)
    return [
        ((-(-numbers // 2), 1), torch.uint8),
        ((blocks,), torch.uint8),
        ((outer,), torch.float32),
        ((), torch.float32),
    ]


def _fill(
    whole: torch.Tensor,
    linears: Mapping[str, torch.nn.Linear],
    prefix: str,
    weights: Weights,
    codes: Any,
    ranges: list[ByteRange],
    dtype: torch.dtype,
) -> None:
    """Writes a layer's bytes to `whole`."""
    views = iter(found.view(whole) for found in ranges)
    for name in linears:
        weight = weights.read(f"{prefix}.{name}.weight").to(whole.device, dtype)
        if codes is None:
            next(views).copy_(weight)
            continue
        packed, state = quantize_4bit(
            weight, blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        for tensor in (packed, state.absmax, state.state2.absmax, state.offset):
            next(views).copy_(tensor)


def _put(
    layer: torch.nn.Module,
    linears: Mapping[str, torch.nn.Linear],
    views: Iterator[torch.Tensor],
    codes: Any,
    dtype: torch.dtype,
) -> None:
    """Makes the layer's linears read their weights from its bytes."""
    for name, linear in linears.items():
        parent, _, child = name.rpartition(".")
        setattr(layer.get_submodule(parent), child, _viewing(linear, views, codes, dtype))


def _viewing(
    linear: torch.nn.Linear, views: Iterator[torch.Tensor], codes: Any, dtype: torch.dtype
) -> torch.nn.Linear:
    """The layer's linear over its bytes; biases are loaded with the rest."""
    if codes is None:
        view = next(views)
        linear.weight = torch.nn.Parameter(torch.empty_like(view), requires_grad=False)
        # Not the view itself: autograd would take the next layer's arrival for a change of it.
        linear.weight.data = view
        return linear
    with torch.device("meta"):
        packed: torch.nn.Linear = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
        )
    data, absmax, outer, offset = (next(views) for _ in range(4))
    state = QuantState(
        absmax=absmax,
        shape=linear.weight.shape,
        code=codes[0],
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=offset,
        state2=QuantState(
            absmax=outer, blocksize=SCALES_PER_BLOCK, code=codes[1], dtype=torch.float32
        ),
    )
    packed.weight = Params4bit(
        data,
        requires_grad=False,
        quant_state=state,
        compress_statistics=True,
        quant_type="nf4",
        module=packed,
        bnb_quantized=True,
    )
    packed.quant_state = state
    return packed


def _load_rest(
    model: PreTrainedModel, weights: Weights, dtype: torch.dtype, device: torch.device
) -> None:
    """Loads embeddings, head, norms and biases, on every rank."""
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type != "meta":
            continue
        if name not in weights and name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = weights.read(name).to(device, dtype)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, torch.nn.Parameter(values, requires_grad=False))
    if model.config.tie_word_embeddings:
        model.tie_weights()
    # The one module whose buffers no checkpoint holds.
    rotary = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config=model.config).to(device)
