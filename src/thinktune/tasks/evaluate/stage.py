"""The evaluate stage: several arms answer the held-out questions, and the report says what came.

All get the same prompts, sampling and stop ids. Files of the artifact: `report.json`,
`report.html`, `report.md`, `samples.jsonl`, and `judge.jsonl` where a language model judged.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thinktune.schema.arms import arms_of
from thinktune.schema.errors import Preempted, ThinktuneError
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.report import Report
from thinktune.schema.stages import EvaluateTask
from thinktune.store import commit
from thinktune.tasks.evaluate.arms import Engines
from thinktune.tasks.evaluate.asking import Asked, ask_all
from thinktune.tasks.evaluate.benchmarks import judge_benchmarks, write_samples
from thinktune.tasks.evaluate.endpoints import ask_endpoints, check_endpoints, endpoint_info
from thinktune.tasks.evaluate.gate import check_requirements
from thinktune.tasks.evaluate.inputs import Inputs, read_inputs
from thinktune.tasks.evaluate.judge import Reply, ask_judge, check_judge, verdicts, write_replies
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.report.benchmarks import Benchmark, benchmark_metric
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report, manifest_metrics
from thinktune.tasks.evaluate.report.markdown import markdown
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary
from thinktune.tasks.evaluate.samples import Judged, Sample
from thinktune.tasks.evaluate.verdicts import Rules, judge_all, verifier_of
from thinktune.tasks.generate.protocol import Likelihood
from thinktune.tasks.model.base import versions
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.labels import LabelList

INCOMPLETE = "incomplete"
"""Folder of the stage where a report stands whose judge or endpoint gave up; it is no artifact."""


def run(task: EvaluateTask, context: Context) -> Manifest | None:
    """Runs the stage and commits its artifact; None where this is a shard and others still
    answer, of which the last one commits."""
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
        if asked is None:
            context.reporter.say("its part is answered; the last of the other pods judges")
            return None
        fault = _ask_endpoints(task, context, inputs, asked)
        if fault is not None:
            # The report of the other arms is worth having while the endpoint is mended.
            alone = task.evaluate.model_copy(update={"endpoints": {}})
            task = task.model_copy(update={"evaluate": alone})
        samples = asked.samples.pop(None)
        replies: list[Reply] = []
        output = folder / "output"
        output.mkdir()
        fault = fault or _judge(task, context, inputs, samples, replies)
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
            metrics={**manifest_metrics(report), "planned_s": task.planned_s},
            created=utc_now(),
        )
    context.reporter.say("done\n\n" + terminal_summary(report))
    return manifest


def _ask_endpoints(
    task: EvaluateTask, context: Context, inputs: Inputs, asked: Asked
) -> ThinktuneError | None:
    """Adds what endpoints say to what the models of this run say; what ended it before all were
    there, or None."""
    questions: dict[str | None, Inputs] = {None: inputs}
    questions.update(inputs.benchmarks)
    try:
        said = {name: ask_endpoints(task, context, each) for name, each in questions.items()}
    except Preempted:
        raise
    except ThinktuneError as error:
        return error
    for name, samples in said.items():
        asked.samples[name] += samples
    return None


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
    context.reporter.say(f"the report of what there is: {place}")


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
    rules = replace(
        judging_rules(task, inputs, tokenizer_file, context.stop), likelihoods=likelihoods
    )
    if spec.judge is not None:
        rules = replace(rules, judge=verdicts(spec.judge, samples, replies))
    context.reporter.say(f"judges {len(samples)} answers")
    return judge_all(samples, inputs.questions, rules)


def judging_rules(task: EvaluateTask, inputs: Inputs, tokenizer_file: Path, stop: Stop) -> Rules:
    """How the answers are judged, without a language model's verdicts."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return Rules(
        marker=task.final_answer,
        verifier=verifier_of(task.evaluate.verifier, inputs.questions),
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        labels=_labels(task),
        stop=lambda: stop.check("evaluate"),
    )


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
    own = {arm.name: engines.info(arm) for arm in arms_of(task.evaluate, task.base)}
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
