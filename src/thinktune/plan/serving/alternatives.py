"""What would fit, where a request as it is does not.

Called by `plan` for refusals.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from thinktune.plan.serving.request import ServeRequest
from thinktune.plan.serving.search import ServeDecision, decide
from thinktune.schema.catalog import HardwareEntry, ModelEntry
from thinktune.schema.serving import Precision

MOST_HARDWARE = 3
"""Nodes to name: the smallest of each kind of GPU, smallest first."""
SHORTEST_WINDOW = 2048
NODES = (1, 2, 4, 8)
PRECISIONS: tuple[Precision, ...] = ("fp8", "awq", "nf4", "16bit")


@dataclass(frozen=True)
class Changeable:
    """What a change may set, which whoever asks can then ask for."""

    precisions: tuple[Precision, ...] = PRECISIONS
    kv_dtype: bool = True
    """Whether the type of the KV cache can be asked for."""


ANYTHING = Changeable()


@dataclass(frozen=True)
class ServeChange:
    """A change of the request that makes it fit."""

    options: str
    """As the command line takes them: `--precision awq`."""
    decision: ServeDecision


def fitting_changes(
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
    may: Changeable = ANYTHING,
) -> tuple[ServeChange, ...]:
    """One change on the same nodes first, then more nodes, then others. Where no single change
    would do: other hardware with another precision, a shorter window, or both."""
    found = [
        *_first_fitting(_shorter_windows(request, model), request, model, catalog),
        *_fitting(_precisions(request, may), request, model, catalog),
        *_fitting(
            [replace(request, kv_dtype="fp8")] if may.kv_dtype else [], request, model, catalog
        ),
        *_first_fitting(_other_nodes(request), request, model, catalog),
        *_other_hardware(request, request, model, catalog),
    ]
    if found:
        return tuple(found)
    windows = list(_shorter_windows(request, model))
    both = [other for window in windows for other in _precisions(window, may)]
    plain = replace(request, kv_dtype="auto", nodes=1)
    for nodes in (plain, *_other_nodes(plain)):
        for changed in (nodes, *_precisions(nodes, may), *windows, *both):
            one = replace(changed, nodes=nodes.nodes, kv_dtype="auto")
            if found := _other_hardware(one, request, model, catalog):
                return tuple(found)
    return ()


def _shorter_windows(request: ServeRequest, model: ModelEntry) -> Iterator[ServeRequest]:
    window = request.window
    if window > model.context:
        window = model.context
        yield replace(request, window=window)
    while window // 2 >= SHORTEST_WINDOW:
        window //= 2
        yield replace(request, window=window)


def _precisions(request: ServeRequest, may: Changeable) -> list[ServeRequest]:
    others = [name for name in may.precisions if name != request.precision]
    return [replace(request, precision=name) for name in others]


def _other_nodes(request: ServeRequest) -> Iterator[ServeRequest]:
    return (replace(request, nodes=nodes) for nodes in NODES if nodes != request.nodes)


def _fitting(
    changed: list[ServeRequest],
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
) -> Iterator[ServeChange]:
    for one in changed:
        decision = decide(one, model, catalog[one.hardware])
        if decision.fault is None:
            yield ServeChange(_options(request, one), decision)


def _first_fitting(
    changed: Iterator[ServeRequest],
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
) -> list[ServeChange]:
    for one in changed:
        if fits := list(_fitting([one], request, model, catalog)):
            return fits
    return []


def by_size(catalog: Mapping[str, HardwareEntry]) -> list[str]:
    """Names of the nodes with GPUs, by what stands for their price, which the catalog does not
    know: memory of all GPUs, then speed."""

    def size(name: str) -> tuple[float, float, str]:
        entry = catalog[name]
        return entry.num_gpus * entry.gpu_memory_gib, entry.num_gpus * entry.bf16_tflops, name

    return sorted((name for name in catalog if catalog[name].num_gpus), key=size)


def _other_hardware(
    changed: ServeRequest,
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
) -> list[ServeChange]:
    kinds: set[str] = set()
    found: list[ServeChange] = []
    for name in by_size(catalog):
        if catalog[name].gpu in kinds or len(kinds) == MOST_HARDWARE:
            continue
        one = replace(changed, hardware=name)
        if fits := list(_fitting([one], request, model, catalog)):
            kinds.add(catalog[name].gpu)
            found += fits
    return found


def _options(before: ServeRequest, after: ServeRequest) -> str:
    changes = {
        "hardware": after.hardware,
        "nodes": after.nodes,
        "precision": after.precision,
        "window": after.window,
        "kv-dtype": after.kv_dtype,
    }
    return " ".join(
        f"--{option} {value}"
        for option, value in changes.items()
        if getattr(before, option.replace("-", "_")) != value
    )
