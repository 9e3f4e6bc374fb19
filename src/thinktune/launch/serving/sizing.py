"""How large a server is: from the serving plan on GPUs, by rules of thumb on CPUs.

Called by `serve` and by tools that render examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thinktune.launch.serving.artifacts import Servable
from thinktune.plan.serving.plan import make_serving_plan, smallest_hardware
from thinktune.plan.serving.request import USUAL_WINDOW, ServeRequest
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serving import Precision, ServeExecution, lora_rank_setting

CPU_MODEL_BYTES = 4 << 30
"""Largest weights in 16 bits that are served on CPUs without a word: transformers computes some
tokens a second of a model of 2 billion parameters."""
CPU_START_S = 600
CPU_WINDOW = 8192
CPU_PROCESS_BYTES = 2 * GIB
"""Interpreter, torch and the gateway."""
SHM_MIB, SHM_MIB_PER_GPU = 256, 1024
"""Between vLLM's processes and between GPUs (NCCL) pass activations and messages."""
LARGEST_SHARE = 0.9
"""Share of a node's CPUs that a pod may request. Kubelet and daemons need the rest."""


@dataclass(frozen=True)
class ServeWishes:
    """What somebody asks for; None leaves it to the runs."""

    precision: Precision | None = None
    window: int | None = None
    nodes: int | None = None
    slots: int = 2
    """Places for adapters on the GPU."""


@dataclass(frozen=True)
class ServerSize:
    """What each pod of a server takes, and how its engine is told to use it."""

    hardware: str
    gpus: int
    """Number of GPUs of each pod."""
    nodes: int
    cpu_millis: int
    memory_mib: int
    disk_gib: int
    shm_mib: int
    window: int
    start_s: int
    """Seconds that the engine gets to start."""
    fetch_s: int
    """Seconds that the weights get to come from the store."""
    execution: ServeExecution | None
    """None on CPUs."""
    said: str
    """One sentence about it."""


def size_server(
    runs: Sequence[Servable],
    hardware: str | None,
    wishes: ServeWishes,
    catalog: Mapping[str, HardwareEntry],
) -> ServerSize:
    """The size of a server of these runs. Without `hardware`, of the smallest node that fits.

    Raises SpecInvalid where it does not fit, with what would.
    """
    request = _request(runs, hardware or "", wishes)
    if hardware is None:
        request = replace(request, hardware=_smallest(request, runs[0].model, catalog))
    node = catalog[request.hardware]
    if node.num_gpus == 0:
        return _on_cpus(runs, request.hardware, node, wishes)
    plan = make_serving_plan(request, runs[0].model, catalog)
    if not plan.fits or plan.execution is None:
        changes = ", or ".join(other.change for other in plan.alternatives)
        remedy = f"would fit: {changes}" if changes else "serve a smaller model"
        raise SpecInvalid(f"server of {runs[0].run} on {request.hardware}", plan.reason, remedy)
    shm = SHM_MIB + SHM_MIB_PER_GPU * (node.num_gpus if node.num_gpus > 1 else 0)
    return ServerSize(
        hardware=request.hardware,
        gpus=node.num_gpus,
        nodes=request.nodes,
        cpu_millis=math.floor(1000 * node.cpus * LARGEST_SHARE),
        memory_mib=math.ceil(plan.host_memory_bytes / 2**20) + shm,
        disk_gib=math.ceil(plan.disk_bytes / GIB),
        shm_mib=shm,
        window=plan.execution.max_model_len,
        start_s=plan.startup_probe_s,
        fetch_s=plan.load_s,
        execution=plan.execution,
        said=f"{request.precision} on {request.nodes} × {request.hardware} {plan.reason}",
    )


def _smallest(
    request: ServeRequest, model: ModelEntry, catalog: Mapping[str, HardwareEntry]
) -> str:
    """Of a catalog without GPUs, the first entry."""
    if any(entry.num_gpus for entry in catalog.values()):
        return smallest_hardware(request, model, catalog)
    return next(iter(catalog))


def _request(runs: Sequence[Servable], hardware: str, wishes: ServeWishes) -> ServeRequest:
    model, widest = runs[0].model, max(runs, key=lambda run: run.rank)
    released_fp8 = model.dtype == "float8_e4m3fn"
    return ServeRequest(
        model=runs[0].model_name,
        hardware=hardware,
        precision=wishes.precision or ("fp8" if released_fp8 else runs[0].base),
        window=wishes.window or min(USUAL_WINDOW, model.context),
        nodes=wishes.nodes or 1,
        adapters=wishes.slots,
        rank=lora_rank_setting(
            widest.rank, f"run {widest.run}", "serve an adapter of a lower rank"
        ),
        targets=tuple(
            name for name in model.lora_targets if any(name in run.targets for run in runs)
        ),
    )


def _on_cpus(
    runs: Sequence[Servable], name: str, node: HardwareEntry, wishes: ServeWishes
) -> ServerSize:
    model = runs[0].model
    weights = 2 * model.parameters
    place = f"server of {runs[0].run} on {name}"
    if weights > CPU_MODEL_BYTES:
        most = f"{CPU_MODEL_BYTES / GIB:.0f}"
        fault = f"its weights are {weights / GIB:.1f} GiB, and CPUs serve {most} at most"
        raise SpecInvalid(place, fault, "name a node with GPUs with --hardware")
    if wishes.precision not in (None, runs[0].base):
        fault = f"CPUs serve at the precision of the training, {runs[0].base}"
        raise SpecInvalid(place, fault, "leave --precision out")
    if (wishes.nodes or 1) > 1:
        raise SpecInvalid(place, "CPUs serve on one node", "leave --nodes out")
    window = wishes.window or min(CPU_WINDOW, model.context)
    if window > model.context:
        fault = f"the window is {window:,} tokens, and the model supports {model.context:,}"
        raise SpecInvalid(place, fault, f"set --window to {model.context} or less")
    # Computed in 32 bits, where the CPU has no others.
    memory = CPU_PROCESS_BYTES + 2 * weights
    return ServerSize(
        hardware=name,
        gpus=0,
        nodes=1,
        cpu_millis=math.floor(1000 * node.cpus * LARGEST_SHARE),
        memory_mib=math.ceil(memory / 2**20) + SHM_MIB,
        disk_gib=math.ceil(weights / GIB) + 2,
        shm_mib=SHM_MIB,
        window=window,
        start_s=CPU_START_S,
        fetch_s=CPU_START_S,
        execution=None,
        said=f"{runs[0].base} on the CPUs of {name}, by transformers where vLLM is not there",
    )
