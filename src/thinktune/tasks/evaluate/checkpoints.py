"""A curve over a run's checkpoints: `python -m thinktune.tasks.evaluate.checkpoints`.

Reads a `CheckpointsRequest` on stdin and prints a `CheckpointsReport`; what it says on the way goes
to stderr. Each checkpoint's adapter answers the run's held-out questions as the tuned model does in
an evaluation: prompts, seeds and verdicts are the same. Answers are kept beside those of the
evaluation, so that the same request asks nothing twice. Nothing that the run committed changes.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from thinktune.schema.arms import Arm
from thinktune.schema.checkpoint_scores import (
    CheckpointScore,
    CheckpointsReport,
    CheckpointsRequest,
    Figure,
)
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.keys import checkpoint_prefix, checkpoints_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import EvaluateTask
from thinktune.store import Store, fetch, manifest_digest, new_attempt, open_store, read_manifest
from thinktune.store.adapters import CONFIG_FILE, WEIGHTS_FILE, checkpoint_steps
from thinktune.tasks.evaluate.arms import Engines
from thinktune.tasks.evaluate.asking import ask_arm
from thinktune.tasks.evaluate.inputs import Inputs, read_questions
from thinktune.tasks.evaluate.metrics.registry import Answers, Metric, Registry, Setup
from thinktune.tasks.evaluate.samples import Judged
from thinktune.tasks.evaluate.stage import judging_rules
from thinktune.tasks.evaluate.statistics import bootstrap_interval
from thinktune.tasks.evaluate.verdicts import judge_all, verifier_of
from thinktune.tasks.model.adapter import write_peft_form
from thinktune.tasks.runtime.answer_channel import answer_channel
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context, guarded, quiet_libraries
from thinktune.tasks.runtime.inputs import stage_manifest
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

STATE_FILE, METRICS_FILE = "adapter.safetensors", "metrics.jsonl"
"""Files of a checkpoint."""


def evaluate_checkpoints(request: CheckpointsRequest, context: Context) -> CheckpointsReport:
    """Asks the checkpoints in turn. Raises InputMissing for one that is not kept, SpecInvalid where
    the recipe is not the run's."""
    task, store = request.task, context.store
    steps = _steps(store, task.run, request.steps)
    prep, selected = stage_manifest(store, task.run, "prep"), _selected_step(store, task.run)
    with tempfile.TemporaryDirectory(prefix="thinktune-checkpoints-") as temporary:
        folder = Path(temporary)
        facts, rows = read_questions(task, context, prep, folder / "prep")
        model = prep.revisions["model"]
        weights = fetch_model(task.model, model, context, folder / "model", weights=True)
        scores = []
        for step in steps:
            own = folder / f"step-{step}"
            manifest = _checkpoint(request, store, prep, step, own)
            inputs = Inputs(prep, manifest, own, facts, rows)
            engines = Engines(task, inputs, weights, context.reporter)
            score = CheckpointScore(
                step=step,
                selected=step == selected,
                validation_loss=_validation_loss(own / METRICS_FILE, step),
                metrics=_metrics(task, context, inputs, engines, weights, step),
            )
            scores.append(score)
    return CheckpointsReport(
        run=task.run,
        questions=len(rows),
        samples=task.evaluate.samples,
        verifier=verifier_of(task.evaluate.verifier, inputs.questions),
        engine=engines.chosen.name,
        checkpoints=tuple(scores),
    )


def _steps(store: Store, run: str, wanted: Sequence[int]) -> list[int]:
    kept = sorted(checkpoint_steps(store, run))
    place = store.location(checkpoints_prefix(run))
    if not kept:
        raise InputMissing(place, f"run {run} has no checkpoint", "train it first")
    missing = [step for step in wanted if step not in kept]
    if missing:
        fault = f"no checkpoint of step {', '.join(map(str, missing))} is kept"
        remedy = f"kept are those of step {', '.join(map(str, kept))}; to keep every one, train"
        remedy += " with --set train.keep_checkpoints=all"
        raise InputMissing(place, fault, remedy)
    return sorted(set(wanted)) or kept


def _checkpoint(
    request: CheckpointsRequest, store: Store, prep: Manifest, step: int, folder: Path
) -> Manifest:
    """Brings a checkpoint to the folder, with its adapter in PEFT's form under `train`."""
    run = request.task.run
    prefix = checkpoint_prefix(run, step)
    place = store.location(prefix)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise InputMissing(place, "it is gone", "name another step")
    if manifest.inputs.get("prep") != manifest_digest(prep):
        fault = "it was trained on another artifact of prep"
        raise InputMissing(place, fault, "name the run that it is of")
    if request.train_sha256 not in (None, manifest.task_sha256):
        fault = f"run {run} was trained by another recipe or with other settings"
        remedy = "name the recipe with every --set that the run was made with"
        raise SpecInvalid("--recipe", fault, remedy)
    fetch(store, prefix, manifest, folder, names=[STATE_FILE, CONFIG_FILE, METRICS_FILE])
    (folder / "train").mkdir()
    (folder / CONFIG_FILE).rename(folder / "train" / CONFIG_FILE)
    write_peft_form(folder / STATE_FILE, folder / "train" / WEIGHTS_FILE)
    return manifest


def _metrics(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    engines: Engines,
    weights: Path,
    step: int,
) -> dict[str, Figure]:
    tokenizer_file = weights / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    arm = Arm(f"step-{step}", f"the adapter of step {step}", task.base, adapter=True)
    with engines.open(task.base) as engine:
        samples = ask_arm(task, context, inputs, engine, arm, tokenizer)
    rules = judging_rules(task, inputs, tokenizer_file, context.stop)
    found: dict[str, list[Judged]] = defaultdict(list)
    for judged in judge_all(samples, inputs.questions, rules):
        found[judged.sample.question_id].append(judged)
    answers = list(found.values())
    setup = Setup(task.evaluate, task.final_answer, rules.verifier, inputs.questions)
    return {
        metric.name: _figure(metric, answers, task.evaluate.seed)
        for metric in Registry.discover()
        if metric.applies(setup)
    }


def _figure(metric: Metric, answers: Sequence[Answers], seed: int) -> Figure:
    value = metric.figure(answers, metric.scores(answers))
    parts = [each for one in answers if (each := metric.contributions(one)) is not None]
    if not metric.tested or value is None or not parts:
        return Figure(value=value, ci95=None)
    sums = np.asarray(parts, dtype=float)
    nothing = np.zeros_like(sums)
    return Figure(value=value, ci95=bootstrap_interval(nothing, sums, metric.aggregate, seed=seed))


def _validation_loss(file: Path, step: int) -> float | None:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [row["validation_loss"] for row in rows
             if row["step"] == step and "validation_loss" in row]  # fmt: skip
    return found[-1] if found else None


def _selected_step(store: Store, run: str) -> int | None:
    """None for a training that is not done."""
    manifest = read_manifest(store, stage_prefix(run, "train"))
    step = manifest.metrics.get("selected_step") if manifest is not None else None
    return step if isinstance(step, int) else None


def main() -> None:
    """Answers one request on stdin."""
    request = CheckpointsRequest.model_validate_json(sys.stdin.read())
    # What a language model says of each checkpoint would be paid for.
    spec = request.task.evaluate.model_copy(
        update={"judge": None, "instruction": None, "precisions": (), "perplexity": False}
    )
    task = request.task.model_copy(update={"evaluate": spec})
    quiet_libraries()
    with (
        answer_channel() as answer,
        Stop.on_signals() as stop,
        tempfile.TemporaryDirectory(prefix="thinktune-progress-") as scratch,
    ):
        # The progress in the run's store is that of its own evaluation.
        progress, attempt = open_store(Path(scratch).as_uri()), new_attempt()
        with Reporter(progress, task.run, "evaluate", attempt) as reporter:
            context = Context(open_store(task.store), attempt, reporter, stop)
            request = request.model_copy(update={"task": task})
            report = evaluate_checkpoints(request, context)
        answer.write(report.model_dump_json() + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
