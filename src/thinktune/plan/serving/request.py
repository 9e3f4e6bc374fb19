"""What is to be served: a recipe's model with its adapter, or a model of the catalog.

Called by whoever plans a server. What is not said follows from recipe and model.
"""

from dataclasses import dataclass

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.lora_targets import target_names
from thinktune.schema.recipe import Recipe
from thinktune.schema.serving import LORA_RANKS, KvDtype, Precision, lora_rank_setting

USUAL_WINDOW = 32768
"""Window in tokens where none is asked for: DeepSeek lets R1 and its distillates answer in as many
(model card of DeepSeek-R1). Models that support less get what they support."""
USUAL_RANK = 16


@dataclass(frozen=True)
class ServeRequest:
    """What is to be served, and on what."""

    model: str
    """Name in the catalog."""
    hardware: str
    """Name in the catalog."""
    precision: Precision
    window: int
    """Longest prompt with its answer, in tokens."""
    nodes: int = 1
    adapters: int = 0
    """Number of adapters on the GPU at once."""
    rank: int = USUAL_RANK
    """Highest rank of these, as `lora_rank_setting` rounds it."""
    targets: tuple[str, ...] = ()
    """Linear layers that they change."""
    kv_dtype: KvDtype = "auto"


@dataclass(frozen=True)
class ServeWish:
    """What somebody asks for; None leaves it to recipe and model."""

    precision: Precision | None = None
    window: int | None = None
    nodes: int | None = None
    adapters: int | None = None
    rank: int | None = None
    kv_dtype: KvDtype | None = None


def request_for_model(name: str, model: ModelEntry, hardware: str, wish: ServeWish) -> ServeRequest:
    """The model as released, without an adapter unless it is asked for. Raises SpecInvalid for a
    rank that vLLM does not take."""
    return ServeRequest(
        model=name,
        hardware=hardware,
        precision=wish.precision or _released_precision(model),
        window=wish.window or min(USUAL_WINDOW, model.context),
        nodes=wish.nodes or 1,
        adapters=wish.adapters or 0,
        rank=_rank(wish.rank or USUAL_RANK, "--rank"),
        targets=model.lora_targets,
        kv_dtype=wish.kv_dtype or "auto",
    )


def request_for_recipe(
    recipe: Recipe, model: ModelEntry, hardware: str, wish: ServeWish
) -> ServeRequest:
    """The recipe's model with the adapter that it trains, at the precision that it trains on; a
    base that is released in FP8 is served so, because vLLM does not quantize it to NF4. Raises
    SpecInvalid for a rank that vLLM does not take."""
    longest = max(USUAL_WINDOW, recipe.data.max_tokens + recipe.evaluate.max_new_tokens)
    released_fp8 = _released_precision(model) == "fp8"
    return ServeRequest(
        model=recipe.model,
        hardware=hardware,
        precision=wish.precision or ("fp8" if released_fp8 else recipe.train.base),
        window=wish.window or min(longest, model.context),
        nodes=wish.nodes or 1,
        adapters=1 if wish.adapters is None else wish.adapters,
        rank=_rank(wish.rank or recipe.train.rank, "--rank" if wish.rank else "train.rank"),
        targets=target_names(model, recipe.train),
        kv_dtype=wish.kv_dtype or "auto",
    )


def _rank(rank: int, place: str) -> int:
    return lora_rank_setting(rank, place, f"take an adapter of rank {LORA_RANKS[-1]} or lower")


def _released_precision(model: ModelEntry) -> Precision:
    return "fp8" if model.dtype == "float8_e4m3fn" else "16bit"
