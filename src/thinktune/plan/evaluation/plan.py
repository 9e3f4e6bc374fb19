"""The plan of an evaluation: what is asked of which arms, by which engine, and what that takes.

Called by `thinktune.plan.run`.
"""

from itertools import groupby

from thinktune.plan import shapes
from thinktune.plan.evaluation import memory, speed
from thinktune.plan.evaluation.memory import Answering
from thinktune.plan.network import BYTES_PER_TOKEN, STORE_BYTES_PER_S, fetch_seconds
from thinktune.plan.training.speed import mean_tokens
from thinktune.schema.arms import Arm, arms_of
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.engines import (
    INSTRUCTION_MARGIN_TOKENS,
    LEAST_CAPABILITY,
    Chosen,
    choose,
    vllm_window,
)
from thinktune.schema.recipe import MERGED, EngineName, Precision, Recipe
from thinktune.schema.report import BASE
from thinktune.schema.serving import LORA_RANKS

WITHOUT_BF16 = (7, 5)
"""Compute capability of the GPUs of the catalog without bf16, which came with 8.0."""
VLLM_START_S = 110.0
"""Seconds until vLLM answers beside loading: 100 to 127 were measured at the 1.5B shape, nearly all
of them for compiling and capturing graphs."""
TRANSFORMERS_START_S = 3.0
"""Seconds until transformers answers beside loading: 3 and 9 were measured at the 1.5B shape."""
LOAD_BYTES_PER_S = 1.3e9
"""Released bytes that a process loads in a second: 65 GB took 46 to 51 s (benchmarks/host.py)."""
PROMPT_SHARE, LEAST_PROMPT_TOKENS = 0.25, 64
"""Assumed length of a prompt, as a share of an example, and the least that it is taken for."""
LONGEST_PROMPT = 1.5
"""Assumed length of the longest prompt, as a multiple of the mean."""
MEASURED = ("H200",)
"""GPUs that benchmarks/results has rates of answers of."""


class ArmPlan(Closed):
    """One arm of the evaluation."""

    name: str
    """Name of the arm, as in the report."""
    precision: Precision
    """Precision of the base that answers."""
    requests: int
    """Answers that are asked of it."""
    hours: float
    """Hours of its answers, with answers of the expected length."""


class EvaluationPlan(Closed):
    """The evaluation of a recipe, planned on its hardware. Each of its pods takes one GPU."""

    fits: bool
    """Whether the answers can be computed on one GPU of the hardware."""
    reason: str
    """One sentence: how much is used, or what is short."""
    engine: EngineName
    """What generates the answers, by the rule of the stage."""
    engine_reason: str
    """Why that engine."""
    arms: tuple[ArmPlan, ...]
    """Who answers, in the order of the report."""
    questions: int
    """Held-out questions that are asked."""
    benchmark_questions: int
    """Questions of benchmarks that are asked beside them."""
    requests: int
    """Answers in all: questions times samples times arms."""
    rows: int
    """Answers that are computed at once."""
    answer_tokens: int
    """Tokens of all answers, if they have `answer_share` of the limit on average."""
    most_answer_tokens: int
    """Tokens of all answers, if each reaches the limit."""
    answer_share: float
    """Assumed mean length of an answer, as a share of max_new_tokens."""
    tokens_per_s: float
    """Tokens of answers per second, start left out."""
    gpu_memory_bytes: dict[str, int]
    """Bytes at the peak on the GPU, by cause; without a GPU, those of the process."""
    gpu_total_bytes: int
    """Sum of the causes."""
    gpu_budget_bytes: int
    """Bytes that the engine may take: vLLM fills its share of a GPU whatever it needs."""
    fetch_s: float
    """Seconds to fetch the model from the store."""
    start_s: float
    """Seconds to load the model and start the engine, once for each precision."""
    hours: float
    """Hours of the stage, with answers of the expected length."""
    most_hours: float
    """Hours of the stage, if each answer reaches the limit."""
    measured: bool
    """Whether rates were measured on this kind of GPU; else they are scaled by published peaks."""
    assumptions: tuple[str, ...]
    """What the figures rest on, one sentence each."""


def plan_evaluation(
    recipe: Recipe, model: ModelEntry, hardware: HardwareEntry, benchmark_questions: int = 0
) -> EvaluationPlan | None:
    """Plans the evaluation of `recipe` on GPUs of `hardware`; None where the recipe holds out no
    question. `benchmark_questions` are asked beside those."""
    spec, held_out = recipe.evaluate, recipe.data.split.test_rows
    questions = min(spec.questions or held_out, held_out)
    if not questions:
        return None
    held_out = questions
    questions += benchmark_questions
    chosen = _engine(recipe, model, hardware)
    arms = arms_of(spec, recipe.train.base)
    requests = questions * spec.samples
    of_pod = -(-requests // spec.shards)
    works = {arm.name: _work(recipe, model, hardware, chosen, arm, of_pod) for arm in arms}
    largest = max(works.values(), key=lambda work: _total(work, hardware))
    fault = _fault(recipe, hardware, largest)
    seconds, starts = _seconds(arms, works, hardware)
    answering = sum(each.expected for each in seconds.values())
    most = sum(each.most for each in seconds.values())
    fetch, start = fetch_seconds(model), starts * _start(model, chosen)
    tokens = len(arms) * requests * spec.max_new_tokens
    return EvaluationPlan(
        fits=fault is None,
        reason=fault or _used(largest, hardware),
        engine=chosen.name,
        engine_reason=chosen.reason,
        arms=tuple(_arm(arm, requests, seconds[arm.name]) for arm in arms),
        questions=held_out,
        benchmark_questions=benchmark_questions,
        requests=len(arms) * requests,
        rows=memory.rows(works[BASE], hardware),
        answer_tokens=round(speed.ANSWER_SHARE * tokens),
        most_answer_tokens=tokens,
        answer_share=speed.ANSWER_SHARE,
        tokens_per_s=speed.ANSWER_SHARE * tokens / answering,
        gpu_memory_bytes=memory.answering_memory(largest, hardware),
        gpu_total_bytes=_total(largest, hardware),
        gpu_budget_bytes=memory.budget(largest, hardware),
        fetch_s=fetch,
        start_s=start,
        hours=(fetch + start + answering) / 3600,
        most_hours=(fetch + start + most) / 3600,
        measured=hardware.gpu in MEASURED,
        assumptions=_assumptions(chosen, hardware, spec.max_new_tokens),
    )


def _engine(recipe: Recipe, model: ModelEntry, hardware: HardwareEntry) -> Chosen:
    """What the stage chooses in its image, which has vLLM."""
    capability = LEAST_CAPABILITY if hardware.bf16 else WITHOUT_BF16
    wanted = recipe.evaluate.engine
    on_gpu = capability if hardware.num_gpus else None
    return choose(wanted, model, on_gpu, vllm_installed=True)


def _work(
    recipe: Recipe,
    model: ModelEntry,
    hardware: HardwareEntry,
    chosen: Chosen,
    arm: Arm,
    requests: int,
) -> Answering:
    spec, dtype = recipe.evaluate, recipe.train.dtype
    full = dtype == "float32" or (dtype == "auto" and not hardware.num_gpus)
    prompt = max(LEAST_PROMPT_TOKENS, round(PROMPT_SHARE * mean_tokens(recipe)))
    words = len((spec.instruction or "").encode())
    instruction = words // BYTES_PER_TOKEN if arm.instructed else 0
    longest = round(LONGEST_PROMPT * prompt) + instruction
    window = longest + spec.max_new_tokens
    if chosen.name == "vllm":  # one window for all arms
        tokens = window - instruction + words + INSTRUCTION_MARGIN_TOKENS
        window = vllm_window(tokens, model.context)
    return Answering(
        model=model,
        engine=chosen.name,
        base=arm.precision,
        element_bytes=4 if full else 2,
        adapter=0 if arm.precision in MERGED else shapes.adapter_parameters(model, recipe.train),
        rank=recipe.train.rank,
        requests=requests,
        prompt_tokens=prompt + instruction,
        longest_prompt_tokens=longest,
        max_new_tokens=spec.max_new_tokens,
        window=window,
        batch_size=spec.batch_size,
    )


def _used(work: Answering, hardware: HardwareEntry) -> str:
    total, budget = _total(work, hardware), memory.budget(work, hardware)
    return f"fits: {total / GIB:.1f} of {budget / GIB:.1f} GiB"


def _fault(recipe: Recipe, hardware: HardwareEntry, work: Answering) -> str | None:
    """Why the arm that takes most does not fit; None where it does."""
    total, budget = _total(work, hardware), memory.budget(work, hardware)
    if work.engine == "vllm" and work.adapter and work.rank > LORA_RANKS[-1]:
        return (
            f"train.rank is {work.rank}, and vLLM takes {LORA_RANKS[-1]} at most;"
            " set evaluate.engine=transformers"
        )
    if work.engine != "vllm" and "fp8" in recipe.evaluate.precisions:
        return "FP8 needs vLLM; leave fp8 out of evaluate.precisions"
    if total <= budget:
        return None
    where = f"one {hardware.gpu}" if hardware.num_gpus else "the node"
    remedy = "choose hardware with more memory for each GPU"
    if work.base != recipe.train.base:
        remedy = f"leave {work.base} out of evaluate.precisions, or {remedy}"
    return (
        f"the answers need at least {total / GIB:.1f} GiB, and {where} has {budget / GIB:.1f} GiB"
        f" for them; {remedy}"
    )


def _total(work: Answering, hardware: HardwareEntry) -> int:
    return sum(memory.answering_memory(work, hardware).values())


def _seconds(
    arms: list[Arm], works: dict[str, Answering], hardware: HardwareEntry
) -> tuple[dict[str, speed.Seconds], int]:
    """Time of each arm, and how often an engine is started: anew for each precision, whose arms
    stand together."""
    first = [next(some).name for _, some in groupby(arms, key=lambda arm: arm.precision)]
    seconds = {
        name: speed.arm_seconds(work, hardware, first=name in first) for name, work in works.items()
    }
    return seconds, len(first)


def _start(model: ModelEntry, chosen: Chosen) -> float:
    start = VLLM_START_S if chosen.name == "vllm" else TRANSFORMERS_START_S
    return start + shapes.released_bytes(model) / LOAD_BYTES_PER_S


def _arm(arm: Arm, requests: int, seconds: speed.Seconds) -> ArmPlan:
    return ArmPlan(
        name=arm.name,
        precision=arm.precision,
        requests=requests,
        hours=seconds.expected / 3600,
    )


def _assumptions(chosen: Chosen, hardware: HardwareEntry, limit: int) -> tuple[str, ...]:
    found = [
        f"Answers have {round(speed.ANSWER_SHARE * limit):,} tokens on average, which is"
        f" {speed.ANSWER_SHARE:.0%} of evaluate.max_new_tokens; the upper bound takes each for as"
        " long as that.",
        f"Prompts have {PROMPT_SHARE:.0%} of an example's tokens.",
        f"The model comes from the store at {STORE_BYTES_PER_S / 1e6:.0f} MB/s; a cluster that"
        " keeps models between pods saves that.",
    ]
    if chosen.name == "vllm":
        found.append("vLLM is installed, as in the image evaluate, and compiles at its start.")
    if not hardware.num_gpus:
        found.append("On a CPU the rate of answers is coarse: it is fitted to one run of the demo.")
    elif hardware.gpu not in MEASURED:
        found.append(
            "Rates of answers were measured with a 1.5B model on an H200, and are scaled by"
            " bandwidth and peak here."
        )
    return tuple(found)
