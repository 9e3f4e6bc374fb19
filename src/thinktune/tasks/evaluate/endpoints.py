"""The arms that endpoints answer: a served run, or a model of another maker, asked in messages.

Called by the stage. The turns are those of the prompts that the other arms get; the endpoint writes
them in its own chat format. Replies are paid for once, whatever ends the evaluation.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thinktune.llm.asking import Asker, Outcome
from thinktune.llm.faults import read_key
from thinktune.llm.live import NO_REPLY
from thinktune.llm.replies import TRUNCATED
from thinktune.llm.requests import Message, Request, profile_of
from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.keys import stage_prefix
from thinktune.schema.llm import LlmSpec
from thinktune.schema.recipe import EndpointSpec, EvaluateSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.evaluate.inputs import Inputs, with_instruction
from thinktune.tasks.evaluate.report.build import ArmInfo
from thinktune.tasks.evaluate.samples import Sample
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.llm_progress import told_by
from thinktune.text.templates import AFTER_REASONING, BEFORE_REASONING, Piece, turns_of

PLACE = "evaluate.endpoints"


def check_endpoints(spec: EvaluateSpec) -> None:
    """Raises SpecInvalid where a key is missing, before hours of generation."""
    for endpoint in spec.endpoints.values():
        read_key(endpoint.llm, os.environ)


def endpoint_info(name: str, endpoint: EndpointSpec) -> ArmInfo:
    """What the report says of such an arm."""
    asked = ", asked in words" if endpoint.instructed else ""
    engine = f"{endpoint.llm.model} at {endpoint.llm.host[0]}"
    return ArmInfo(f"{name}{asked}", engine, "the recipe names it", "as the endpoint serves it")


def ask_endpoints(task: EvaluateTask, context: Context, inputs: Inputs) -> list[Sample]:
    """The answers of all endpoints to all questions, one endpoint after the other.

    A question that the endpoint refuses has an empty answer, so that no arm is measured on fewer
    questions; one that its limit cut off is judged by what there is, as in any arm. Raises what
    `Asker.ask` raises, and ServiceUnavailable where the endpoint failed on a question each time:
    that says nothing about its answer.
    """
    samples: list[Sample] = []
    for name, endpoint in task.evaluate.endpoints.items():
        samples += _ask(task, context, inputs, name, endpoint)
    return samples


def _ask(
    task: EvaluateTask, context: Context, inputs: Inputs, name: str, endpoint: EndpointSpec
) -> list[Sample]:
    found: dict[tuple[str, int], Sample] = {}
    reasons: Counter[str] = Counter()
    references = {row["id"]: row["reference"] for row in inputs.rows}
    spec = sampled_as(task.evaluate, endpoint)
    with Asker(
        spec,
        context.store,
        f"{stage_prefix(task.run, 'evaluate')}/llm",
        place=f"{PLACE}.{name}.llm",
        stop=lambda: context.stop.requested,
        progress=told_by(context.reporter, f"ask {name}"),
        # The name of a served model may lead to another one tomorrow.
        replies_prefix=f"{stage_prefix(task.run, 'evaluate')}/replies/{profile_of(spec)}",
    ) as asker:
        for outcome in asker.ask(_requests(task, inputs.rows, endpoint, inputs.behind)):
            request = outcome.request
            reasons.update([outcome.reason] if outcome.reason is not None else [])
            found[request.id, request.draft] = _sample(name, outcome, references)
    if lost := reasons[NO_REPLY]:
        fault = f"no reply to {lost} of {len(found)} requests"
        remedy = "run the same command again: the replies that came are kept"
        raise ServiceUnavailable(f"{PLACE}.{name}", fault, remedy)
    if reasons:
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        context.reporter.say(f"{name}: no answer to {reasons.total()} requests ({counted})")
    return [
        found[row["id"], number] for number in range(task.evaluate.samples) for row in inputs.rows
    ]


def sampled_as(spec: EvaluateSpec, endpoint: EndpointSpec) -> LlmSpec:
    """The endpoint's settings, with the sampling of the other arms unless it has its own."""
    if endpoint.own_sampling:
        return endpoint.llm
    same = {
        "temperature": spec.temperature,
        "top_p": spec.top_p,
        "max_tokens": spec.max_new_tokens,
        "seed": spec.seed,
    }
    parameters = endpoint.llm.parameters.model_copy(update=same)
    return endpoint.llm.model_copy(update={"parameters": parameters})


def _requests(
    task: EvaluateTask, rows: Sequence[Mapping[str, Any]], endpoint: EndpointSpec, behind: str
) -> Iterator[Request]:
    spec = task.evaluate
    for number in range(spec.samples):
        for row in rows:
            pieces = [Piece(piece["text"], piece["control"]) for piece in row["pieces"]]
            turns = [Message(role, text) for role, text in turns_of(task.model, pieces)]
            if endpoint.instructed:
                said = with_instruction(turns[-1].content, str(spec.instruction), behind)
                turns[-1] = Message(turns[-1].role, said)
            yield Request(row["id"], tuple(turns), draft=number)


def _sample(arm: str, outcome: Outcome, references: Mapping[str, str | None]) -> Sample:
    # A cut may leave half a character of UTF-16, which no file takes.
    thought = outcome.thinking.encode("utf-8", "replace").decode()
    thinking = f"{BEFORE_REASONING}{thought}" if thought else ""
    if thinking and (outcome.reason != TRUNCATED or outcome.cut):
        thinking += AFTER_REASONING
    return Sample(
        question_id=outcome.request.id,
        arm=arm,
        sample=outcome.request.draft,
        text=thinking + (outcome.text or outcome.cut),
        prompt_opens_think=False,
        tokens=outcome.tokens or 0,
        finished=outcome.reason != TRUNCATED,
        reference=references[outcome.request.id],
    )
