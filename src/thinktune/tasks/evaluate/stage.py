"""The evaluate stage: several arms answer the held-out questions, and the report says what came.

All get the same prompts, sampling and stop ids. Files of the artifact: `report.json`,
`report.html`, `report.md`, `samples.jsonl`, and `judge.jsonl` where a language model judged.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thinktune.schema.errors import Preempted, ThinktuneError
from thinktune.schema.keys import parts_prefix, stage_prefix, timings_key
from thinktune.schema.manifest import Manifest
from thinktune.schema.report import Report
from thinktune.schema.stages import EvaluateTask
from thinktune.store import commit
from thinktune.tasks.evaluate.arms import Arm, Engines, arms_of, engine_version
from thinktune.tasks.evaluate.benchmarks import judge_benchmarks, write_samples
from thinktune.tasks.evaluate.endpoints import ask_endpoints, check_endpoints, endpoint_info
from thinktune.tasks.evaluate.gate import check_requirements
from thinktune.tasks.evaluate.inputs import Inputs, asked_in_words, read_inputs
from thinktune.tasks.evaluate.judge import Reply, ask_judge, check_judge, verdicts, write_replies
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.perplexity import measure, measures
from thinktune.tasks.evaluate.report.benchmarks import Benchmark, benchmark_metric
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report, manifest_metrics
from thinktune.tasks.evaluate.report.markdown import markdown
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary
from thinktune.tasks.evaluate.samples import Judged, Sample, sample_key
from thinktune.tasks.evaluate.verdicts import Rules, judge_all, verifier_of
from thinktune.tasks.generate.answers import AnswerStore, generate
from thinktune.tasks.generate.protocol import Engine, Likelihood, Request, Sampling
from thinktune.tasks.generate.timings import Timings
from thinktune.tasks.model.base import versions
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.text.labels import LabelList
from thinktune.text.tokens import Encoder

INCOMPLETE = "incomplete"
"""Folder of the stage where a report stands whose judge gave up; it is no artifact."""


def run(task: EvaluateTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    metrics = Registry.discover()
    named = map(benchmark_metric, task.evaluate.benchmarks)
    check_requirements(task.evaluate.require, metrics, named)
    with tempfile.TemporaryDirectory(prefix="thinktune-evaluate-") as temporary:
        folder = Path(temporary)
        inputs = read_inputs(task, context, folder)
        weights = fetch_model(
            task.model, inputs.prep.revisions["model"], context, folder / "model", weights=True
        )
        check_judge(task.evaluate.judge)
        check_endpoints(task.evaluate)
        engines = Engines(task, inputs, weights, context.reporter)
        tokenizer_file = weights / "tokenizer.json"
        asked = ask_all(task, context, inputs, engines, tokenizer_file)
        samples = asked.samples.pop(None)
        samples += ask_endpoints(task, context, inputs)
        for name, of_benchmark in inputs.benchmarks.items():
            asked.samples[name] += ask_endpoints(task, context, of_benchmark)
        replies: list[Reply] = []
        output = folder / "output"
        output.mkdir()
        fault = _judge(task, context, inputs, samples, replies)
        judged = _judged(task, context, inputs, samples, replies, tokenizer_file, asked.likelihoods)
        apart = judge_benchmarks(task, context, inputs, asked.samples, judged, tokenizer_file)
        report = _report(task, inputs, judged, engines, metrics, apart)
        _write_files(inputs, report, judged, replies, output)
        write_samples(apart, output)
        if fault is not None:
            _keep_incomplete(task, context, output)
            raise fault
        manifest = commit(
            context.store,
            stage_prefix(task.run, "evaluate"),
            output,
            kind="evaluate",
            run=task.run,
            attempt=context.attempt,
            inputs=inputs.pinned(),
            task_sha256=task.result_digest(),
            template_sha256=inputs.prep.template_sha256,
            revisions=inputs.prep.revisions,
            versions=versions(),
            metrics=manifest_metrics(report),
            created=utc_now(),
        )
    context.reporter.say("done\n\n" + terminal_summary(report))
    return manifest


@dataclass(frozen=True)
class Asked:
    """What the models of this run say."""

    samples: dict[str | None, list[Sample]]
    """Answers to the held-out questions (None) and to those of each benchmark, by its name."""
    likelihoods: dict[tuple[str, str], Likelihood]
    """Of reference completions, by arm and question; empty unless the recipe asks for them."""


def ask_all(
    task: EvaluateTask, context: Context, inputs: Inputs, engines: Engines, tokenizer_file: Path
) -> Asked:
    """What all arms of this run say, with what they said to an earlier attempt."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    # It parses the tokenizer's file twice more, for prompts that prep did not render.
    spec = task.evaluate
    needed = spec.instruction is not None or spec.perplexity
    encoder = Encoder(tokenizer_file) if needed else None
    timings = Timings(context.store, timings_key(task.run, context.attempt), context.reporter)
    questions: dict[str | None, Inputs] = {None: inputs}
    questions.update(inputs.benchmarks)
    asked = Asked({name: [] for name in questions}, {})
    for precision, arms in groupby(arms_of(task), key=lambda arm: arm.precision):
        with engines.open(precision) as engine:
            for arm in arms:
                for name, each in questions.items():
                    phase = f"generate {arm.name}" + (f" {name}" if name else "")
                    asked.samples[name] += ask(
                        task,
                        context,
                        each,
                        engine,
                        arm,
                        tokenizer,
                        encoder,
                        phase=phase,
                        timings=timings,
                    )
                if encoder is not None and measures(task, arm):
                    asked.likelihoods.update(measure(task, context, inputs, engine, arm, encoder))
    return asked


def ask(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    engine: Engine,
    arm: Arm,
    tokenizer: Tokenizer,
    encoder: Encoder | None,
    *,
    phase: str,
    timings: Timings,
) -> list[Sample]:
    """The answers of one arm. `encoder` is needed for one that is instructed; `phase` is what the
    progress calls it."""
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
    kept = AnswerStore(context.store, parts_prefix(task.run), identity)
    instruction = spec.instruction if arm.instructed else None
    prompts = {
        row["id"]: row["prompt_ids"]
        if instruction is None or encoder is None
        else asked_in_words(row, instruction, encoder, inputs.behind)
        for row in inputs.rows
    }
    asked = [(number, row) for number in range(spec.samples) for row in inputs.rows]
    requests = [_request(task, arm, number, row["id"], prompts[row["id"]]) for number, row in asked]
    answers = generate(engine, requests, sampling, kept, context, phase=phase, timings=timings)
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
        for (number, row), answer in zip(asked, answers, strict=True)
    ]


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


def _judge(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    samples: Sequence[Sample],
    replies: list[Reply],
) -> ThinktuneError | None:
    """Fills `replies`; what ended it before all were there, or None."""
    spec = task.evaluate.judge
    if spec is None:
        return None
    try:
        ask_judge(spec, samples, inputs.questions, task.run, context, replies)
    except Preempted:
        raise
    except ThinktuneError as error:
        return error
    return None


def _keep_incomplete(task: EvaluateTask, context: Context, output: Path) -> None:
    """Puts what there is where people can read it, though no later stage will."""
    prefix = f"{stage_prefix(task.run, 'evaluate')}/{INCOMPLETE}"
    for file in sorted(output.iterdir()):
        context.store.put(f"{prefix}/{file.name}", file.read_bytes())
    place = context.store.location(f"{prefix}/report.html")
    context.reporter.say(f"the report without the judge's missing verdicts: {place}")


def _judged(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    samples: Sequence[Sample],
    replies: Sequence[Reply],
    tokenizer_file: Path,
    likelihoods: Mapping[tuple[str, str], Likelihood],
) -> list[Judged]:
    spec = task.evaluate
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rules = Rules(
        marker=task.final_answer,
        verifier=verifier_of(spec.verifier, inputs.questions),
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        labels=_labels(task),
        judge=verdicts(spec.judge, samples, replies) if spec.judge is not None else {},
        likelihoods=likelihoods,
        stop=lambda: context.stop.check("evaluate"),
    )
    context.reporter.say(f"judges {len(samples)} answers")
    return judge_all(samples, inputs.questions, rules)


def _report(
    task: EvaluateTask,
    inputs: Inputs,
    judged: Sequence[Judged],
    engines: Engines,
    metrics: Registry,
    benchmarks: Mapping[str, Benchmark],
) -> Report:
    spec, questions = task.evaluate, inputs.questions
    setup = Setup(spec, task.final_answer, verifier_of(spec.verifier, questions), questions)
    return build_report(
        run=task.run,
        model=task.model.repo,
        setup=setup,
        arms=_arm_infos(task, engines),
        judged=judged,
        versions=versions(),
        metrics=metrics,
        benchmarks=benchmarks,
    )


def _arm_infos(task: EvaluateTask, engines: Engines) -> dict[str, ArmInfo]:
    own = {arm.name: engines.info(arm) for arm in arms_of(task)}
    return own | {name: endpoint_info(name, e) for name, e in task.evaluate.endpoints.items()}


def _labels(task: EvaluateTask) -> LabelList | None:
    spec = task.evaluate.labels
    if spec is None:
        return None
    return LabelList(spec.marker, spec.values, spec.none, spec.aliases)


def _write_files(
    inputs: Inputs,
    report: Report,
    judged: Sequence[Judged],
    replies: Sequence[Reply],
    output: Path,
) -> None:
    plain = json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (output / "report.json").write_text(plain, encoding="utf-8")
    (output / "report.md").write_text(markdown(report), encoding="utf-8")
    train, prep = inputs.folder / "train", inputs.folder / "prep"
    rows = (train / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    card: dict[str, Any] = json.loads((prep / "card.json").read_text(encoding="utf-8"))
    training = [json.loads(row) for row in rows]
    write_html(report, inputs.questions, judged, training, card["lengths"], output / "report.html")
    with (output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for each in judged:
            file.write(json.dumps(asdict(each.sample), ensure_ascii=False) + "\n")
    if replies:
        write_replies(replies, output / "judge.jsonl")
