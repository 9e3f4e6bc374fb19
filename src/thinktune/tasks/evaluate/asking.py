"""All arms that an engine of this process answers are asked all questions. Called by the stage."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thinktune.schema.arms import Arm, arms_of
from thinktune.schema.keys import parts_prefix, timings_key
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.evaluate.arms import Engines, engine_version
from thinktune.tasks.evaluate.inputs import Inputs, asked_in_words
from thinktune.tasks.evaluate.perplexity import measure, measures
from thinktune.tasks.evaluate.samples import Sample, sample_key
from thinktune.tasks.generate.answers import AnswerStore, Shard, generate
from thinktune.tasks.generate.protocol import Answer, Engine, Likelihood, Request, Sampling
from thinktune.tasks.generate.timings import Timings
from thinktune.tasks.runtime.entry import Context
from thinktune.text.tokens import Encoder

Measured = dict[tuple[str, str], Likelihood]
"""Of reference completions, by arm and question."""


@dataclass(frozen=True)
class Asked:
    """What the models of this run say."""

    samples: dict[str | None, list[Sample]]
    """Answers to the held-out questions (None) and to those of each benchmark, by its name."""
    likelihoods: Measured
    """Empty unless the recipe asks for them."""


@dataclass(frozen=True)
class _Requests:
    """What one arm is asked, and where its answers are kept."""

    arm: Arm
    requests: Sequence[Request]
    """Of each draw, one for each row."""
    sampling: Sampling
    kept: AnswerStore


def ask_all(
    task: EvaluateTask, context: Context, inputs: Inputs, engines: Engines, tokenizer_file: Path
) -> Asked | None:
    """What all arms of this run say, with what they said to an earlier attempt; None where this
    process is a shard, and others still answer."""
    # It parses the tokenizer's file twice more, for prompts that prep did not render.
    needed = task.evaluate.instruction is not None or task.evaluate.perplexity
    encoder = Encoder(tokenizer_file) if needed else None
    shard = Shard.from_environment(os.environ)
    timings = Timings(context.store, timings_key(task.run, context.attempt), context.reporter)
    questions: dict[str | None, Inputs] = {None: inputs}
    questions.update(inputs.benchmarks)
    all_asked: list[tuple[str | None, _Requests, list[Answer] | None]] = []
    measured: list[tuple[Engine, Arm, Measured | None]] = []
    arms = arms_of(task.evaluate, task.base)
    for precision, some in groupby(arms, key=lambda arm: arm.precision):
        with engines.open(precision) as engine:
            for arm in some:
                for name, each in questions.items():
                    asked = _requests(task, context, each, engine, arm, encoder)
                    phase = f"generate {arm.name}" + (f" {name}" if name else "")
                    found = _answers(engine, asked, context, phase, timings, shard)
                    all_asked.append((name, asked, found))
                if encoder is not None and measures(task, arm):
                    first = shard.index == 0
                    said = measure(task, context, inputs, engine, arm, encoder, compute=first)
                    measured.append((engine, arm, said))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    samples: dict[str | None, list[Sample]] = {name: [] for name in questions}
    for name, asked, found in all_asked:
        # Other shards may have finished while this one answered for later arms.
        answers = found or asked.kept.all_of(asked.requests)
        if answers is None:
            return None
        samples[name] += _samples(task, questions[name], asked.arm, answers, tokenizer)
    likelihoods: Measured = {}
    for engine, arm, said in measured:
        assert encoder is not None, "it is made where something is measured"
        said = said or measure(task, context, inputs, engine, arm, encoder, compute=False)
        if said is None:
            return None
        likelihoods |= said
    return Asked(samples, likelihoods)


def _answers(
    engine: Engine,
    asked: _Requests,
    context: Context,
    phase: str,
    timings: Timings,
    shard: Shard,
) -> list[Answer] | None:
    return generate(
        engine,
        asked.requests,
        asked.sampling,
        asked.kept,
        context,
        phase=phase,
        timings=timings,
        shard=shard,
    )


def ask_arm(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    engine: Engine,
    arm: Arm,
    tokenizer: Tokenizer,
) -> list[Sample]:
    """The answers of one arm that is not instructed, all from this process."""
    asked = _requests(task, context, inputs, engine, arm, None)
    answers = generate(
        engine, asked.requests, asked.sampling, asked.kept, context, phase=f"generate {arm.name}"
    )
    assert answers is not None, "the only shard has answered all"
    return _samples(task, inputs, arm, answers, tokenizer)


def _requests(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    engine: Engine,
    arm: Arm,
    encoder: Encoder | None,
) -> _Requests:
    """`encoder` is needed for an arm that is instructed."""
    spec = task.evaluate
    sampling = Sampling(
        temperature=spec.temperature,
        top_p=spec.top_p,
        max_new_tokens=spec.max_new_tokens,
        stop_ids=inputs.facts.stop_ids,
    )
    computed = (engine.name, engine_version(engine.name), arm.precision, task.dtype)
    decides = [*inputs.digests().values(), *computed]
    identity = hashlib.sha256("\n".join([*decides, sampling.digest()]).encode()).hexdigest()
    instruction = spec.instruction if arm.instructed else None
    prompts = {
        row["id"]: row["prompt_ids"]
        if instruction is None or encoder is None
        else asked_in_words(row, instruction, encoder, inputs.behind)
        for row in inputs.rows
    }
    requests = [
        _request(task, arm, number, row["id"], prompts[row["id"]])
        for number, row in _draws(task, inputs)
    ]
    kept = AnswerStore(context.store, parts_prefix(task.run), identity)
    return _Requests(arm, requests, sampling, kept)


def _draws(task: EvaluateTask, inputs: Inputs) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((number, row) for number in range(task.evaluate.samples) for row in inputs.rows)


def _request(
    task: EvaluateTask, arm: Arm, number: int, question: str, prompt_ids: Sequence[int]
) -> Request:
    """Its seed is the same for all arms: what they are asked differs in nothing else."""
    seeded = f"{task.evaluate.seed}:{number}:{question}"
    return Request(
        id=sample_key(arm.name, number, question),
        prompt_ids=tuple(prompt_ids),
        seed=int.from_bytes(hashlib.sha256(seeded.encode()).digest()[:4], "big"),
        adapter=arm.adapter,
    )


def _samples(
    task: EvaluateTask,
    inputs: Inputs,
    arm: Arm,
    answers: Sequence[Answer],
    tokenizer: Tokenizer,
) -> list[Sample]:
    return [
        Sample(
            question_id=row["id"],
            arm=arm.name,
            sample=number,
            text=tokenizer.decode(list(answer.ids), skip_special_tokens=False),
            prompt_opens_think=inputs.facts.opens_think,
            tokens=len(answer.ids),
            finished=answer.finished,
            reference=row["reference"],
        )
        for (number, row), answer in zip(_draws(task, inputs), answers, strict=True)
    ]
