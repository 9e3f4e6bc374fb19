"""How large a server is: from the serving plan where vLLM serves, by rules of thumb on CPUs and
GPUs where transformers does.

Called by `serve` and by tools that render examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thinktune.launch.serving.artifacts import Servable, check_placed
from thinktune.plan.serving.alternatives import Changeable, by_size
from thinktune.plan.serving.plan import READ_BYTES_PER_S, make_serving_plan, smallest_hardware
from thinktune.plan.serving.request import USUAL_WINDOW, ServeRequest
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.engines import rows_that_fit
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EngineChoice
from thinktune.schema.serving import Precision, ServeExecution, lora_rank_setting

CPU_MODEL_BYTES = 4 << 30
"""Largest weights in 16 bits that are served on CPUs without a word: transformers computes some
tokens a second of a model of 2 billion parameters."""
TRANSFORMERS_START_S = 600
TRANSFORMERS_WINDOW = 8192
PROCESS_BYTES = 2 * GIB
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
    """None on CPUs, and where transformers serves."""
    said: str
    """One sentence about it."""


def size_server(
    runs: Sequence[Servable],
    hardware: str | None,
    wishes: ServeWishes,
    catalog: Mapping[str, HardwareEntry],
    engine: EngineChoice = "auto",
) -> ServerSize:
    """The size of a server of these runs. Without `hardware`, of the smallest node that fits.
    `engine`: what is asked for.

    Raises SpecInvalid where it does not fit, with what would.
    """
    if hardware is None:
        hardware = _smallest(runs, wishes, catalog, engine)
    node = catalog[hardware]
    if node.num_gpus == 0:
        return _on_cpus(runs, hardware, node, wishes)
    if by_transformers(node, engine):
        return _on_one_gpu(runs, hardware, node, wishes, engine)
    request = _request(runs, hardware, wishes)
    _check_for_vllm(runs, request)
    known = {name: each for name, each in catalog.items() if not by_transformers(each, engine)}
    may = Changeable(precisions_of(runs[0].model), kv_dtype=False)
    plan = make_serving_plan(request, runs[0].model, known, may)
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


def by_transformers(node: HardwareEntry, engine: EngineChoice) -> bool:
    """Whether transformers computes on the node's GPUs, as the server will choose in its image,
    which has vLLM: that takes GPUs older than Ampere, which have no bfloat16, only if it is asked
    to (`LEAST_CAPABILITY`)."""
    return engine == "transformers" or (engine == "auto" and not node.bf16)


def precisions_of(model: ModelEntry) -> tuple[Precision, ...]:
    """Those that the artifacts of a run can be served in: vLLM quantizes the released weights while
    it loads them, and there are no others."""
    return ("fp8",) if model.dtype == "float8_e4m3fn" else ("fp8", "nf4", "16bit")


def _check_for_vllm(runs: Sequence[Servable], request: ServeRequest) -> None:
    check_placed(runs)
    known = precisions_of(runs[0].model)
    if request.precision not in known:
        fault = f"{request.model} in {request.precision} needs a checkpoint made beforehand, and"
        fault += " a run has none"
        remedy = f"set --precision to {' or '.join(known)}, or leave it out"
        raise SpecInvalid(f"server of {runs[0].run}", fault, remedy)


def _smallest(
    runs: Sequence[Servable],
    wishes: ServeWishes,
    catalog: Mapping[str, HardwareEntry],
    engine: EngineChoice,
) -> str:
    """Of a catalog without GPUs, the first entry."""
    gpus = by_size(catalog)
    if not gpus:
        return next(iter(catalog))
    own = [name for name in gpus if by_transformers(catalog[name], engine)]
    fitting = next((name for name in own if not _lacking(runs, catalog[name], wishes)), None)
    others = {name: catalog[name] for name in gpus if name not in own}
    if not others:
        return fitting or own[-1]
    request = _request(runs, "", wishes)
    found = smallest_hardware(request, runs[0].model, others)
    smaller = fitting is not None and gpus.index(fitting) < gpus.index(found)
    return fitting if fitting is not None and smaller else found


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
    window = _window_of_transformers(runs, wishes, place, "CPUs serve")
    return ServerSize(
        hardware=name,
        gpus=0,
        nodes=1,
        cpu_millis=math.floor(1000 * node.cpus * LARGEST_SHARE),
        # Computed in 32 bits, where the CPU has no others.
        memory_mib=math.ceil((PROCESS_BYTES + 2 * weights) / 2**20) + SHM_MIB,
        disk_gib=math.ceil(weights / GIB) + 2,
        shm_mib=SHM_MIB,
        window=window,
        start_s=TRANSFORMERS_START_S,
        fetch_s=TRANSFORMERS_START_S,
        execution=None,
        said=f"{runs[0].base} on the CPUs of {name}, by transformers where vLLM is not there",
    )


def _on_one_gpu(
    runs: Sequence[Servable],
    name: str,
    node: HardwareEntry,
    wishes: ServeWishes,
    engine: EngineChoice,
) -> ServerSize:
    place = f"server of {runs[0].run} on {name}"
    window = _window_of_transformers(runs, wishes, place, "transformers serves")
    lacking = _lacking(runs, node, wishes)
    if lacking is not None:
        remedy = "name GPUs of Ampere or newer with --hardware, where vLLM serves"
        if engine == "transformers":
            remedy = "name a node with one, larger GPU with --hardware, or set --engine vllm"
        raise SpecInvalid(place, lacking, remedy)
    weights = 2 * runs[0].model.parameters
    read_s = math.ceil(weights / READ_BYTES_PER_S)
    return ServerSize(
        hardware=name,
        gpus=1,
        nodes=1,
        cpu_millis=math.floor(1000 * node.cpus * LARGEST_SHARE),
        # The checkpoint passes through host memory.
        memory_mib=math.ceil((PROCESS_BYTES + weights) / 2**20) + SHM_MIB,
        disk_gib=math.ceil(weights / GIB) + 2,
        shm_mib=SHM_MIB,
        window=window,
        start_s=TRANSFORMERS_START_S + read_s,
        fetch_s=TRANSFORMERS_START_S + read_s,
        execution=None,
        said=f"{runs[0].base} on the {node.gpu} of {name}, by transformers",
    )


def _lacking(runs: Sequence[Servable], node: HardwareEntry, wishes: ServeWishes) -> str | None:
    """Why transformers cannot serve on the node's GPUs; None where it can."""
    if node.num_gpus > 1:
        return f"it has {node.num_gpus} GPUs, and transformers, which serves there, uses one"
    model, memory = runs[0].model, math.floor(node.gpu_memory_gib * GIB)
    window = wishes.window or min(TRANSFORMERS_WINDOW, model.context)
    if rows_that_fit(model, runs[0].base, window, memory) < 1:
        return (
            f"{runs[0].model_name} in {runs[0].base} with a window of {window:,} tokens does not"
            f" fit one {node.gpu} with transformers, which serves there"
        )
    return None


def _window_of_transformers(
    runs: Sequence[Servable], wishes: ServeWishes, place: str, who: str
) -> int:
    """Tokens of its window. Raises SpecInvalid for what it cannot do."""
    if wishes.precision not in (None, runs[0].base):
        fault = f"{who} at the precision of the training, {runs[0].base}"
        raise SpecInvalid(place, fault, f"leave --precision out, or set it to {runs[0].base}")
    if (wishes.nodes or 1) > 1:
        raise SpecInvalid(place, f"{who} on one node", "leave --nodes out, or set it to 1")
    context = runs[0].model.context
    window = wishes.window or min(TRANSFORMERS_WINDOW, context)
    if window > context:
        fault = f"the window is {window:,} tokens, and the model supports {context:,}"
        raise SpecInvalid(place, fault, f"set --window to {context} or less")
    return window
