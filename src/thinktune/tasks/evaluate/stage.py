"""The evaluate stage: base and tuned answer the held-out questions, and the report says what came.

Both variants are one model in memory, the adapter off and on, so they differ in nothing else.
Files of the artifact: `report.json`, `report.html`, `samples.jsonl`.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from peft import PeftModel
from tokenizers import Tokenizer

from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest, Metric
from thinktune.schema.stages import EvaluateTask
from thinktune.store import commit, fetch, manifest_digest
from thinktune.tasks.evaluate.generate import generate
from thinktune.tasks.evaluate.page import write_html
from thinktune.tasks.evaluate.parts import Parts
from thinktune.tasks.evaluate.report import build_report
from thinktune.tasks.evaluate.samples import VARIANTS, Question, Sample, Variant
from thinktune.tasks.evaluate.wording import terminal_summary
from thinktune.tasks.model.base import (
    compute_dtype,
    device_name,
    load_base,
    local_device,
    unpack_on_cpu,
    versions,
)
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.inputs import stage_manifest
from thinktune.tasks.runtime.progress import utc_now


@dataclass(frozen=True)
class Inputs:
    """The artifacts that are judged."""

    prep: Manifest
    train: Manifest
    folder: Path
    questions: list[dict[str, Any]]


def run(task: EvaluateTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    with tempfile.TemporaryDirectory(prefix="thinktune-evaluate-") as temporary:
        folder = Path(temporary)
        inputs = _inputs(task, context, folder)
        digests = {"prep": manifest_digest(inputs.prep), "train": manifest_digest(inputs.train)}
        weights = fetch_model(
            task.model, inputs.prep.revisions["model"], context, folder / "model", weights=True
        )
        tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        parts = Parts(context.store, task.run, task.result_digest() + digests["train"])
        samples = _Asking(task, context, inputs, weights, tokenizer, parts).samples()
        output = folder / "output"
        output.mkdir()
        report = _write(task, inputs, samples, tokenizer, output)
        manifest = commit(
            context.store,
            stage_prefix(task.run, "evaluate"),
            output,
            kind="evaluate",
            run=task.run,
            attempt=context.attempt,
            inputs=digests,
            task_sha256=task.result_digest(),
            template_sha256=inputs.prep.template_sha256,
            revisions=inputs.prep.revisions,
            versions=versions(),
            metrics=_metrics(report),
            created=utc_now(),
        )
    context.reporter.say("done\n\n" + terminal_summary(report))
    return manifest


def _inputs(task: EvaluateTask, context: Context, folder: Path) -> Inputs:
    prep = stage_manifest(context.store, task.run, "prep")
    train = stage_manifest(context.store, task.run, "train")
    prefix = stage_prefix(task.run, "prep")
    fetch(context.store, prefix, prep, folder / "prep", names=["test.parquet", "card.json"])
    fetch(context.store, stage_prefix(task.run, "train"), train, folder / "train")
    questions = pq.read_table(folder / "prep" / "test.parquet").to_pylist()
    questions = questions[: task.evaluate.questions]
    if not questions:
        fault = "no question was held out"
        raise DataInvalid("prep", fault, "set data.split.test_rows and run again")
    return Inputs(prep, train, folder, questions)


class _Asking:
    """Asks all questions of both variants, in batches that are kept as they are done."""

    def __init__(
        self,
        task: EvaluateTask,
        context: Context,
        inputs: Inputs,
        weights: Path,
        tokenizer: Tokenizer,
        parts: Parts,
    ) -> None:
        self._task, self._context, self._inputs = task, context, inputs
        self._weights, self._tokenizer, self._parts = weights, tokenizer, parts
        self._model: PeftModel | None = None
        # Neighbors in length share a batch, so that little is padding.
        self._questions = sorted(inputs.questions, key=lambda q: (len(q["prompt_ids"]), q["id"]))

    def samples(self) -> list[Sample]:
        """All samples, those of an earlier attempt included."""
        size = self._task.evaluate.batch_size
        batches = range(0, len(self._questions), size)
        result: list[Sample] = []
        for variant in VARIANTS:
            # Decoding steps are what takes the time; answers often end before the last one.
            steps = len(batches) * self._task.evaluate.samples * self._task.evaluate.max_new_tokens
            self._context.reporter.phase(f"generate {variant}", steps, "decoding steps at most")
            for number in range(self._task.evaluate.samples):
                for start in batches:
                    some = self._questions[start : start + size]
                    result += self._batch(variant, number, start // size, some)
        return result

    def _batch(
        self, variant: Variant, number: int, batch: int, questions: Sequence[dict[str, Any]]
    ) -> list[Sample]:
        name = f"{variant}-{number:03d}-{batch:05d}"
        samples, known = self._parts.get_or_make(
            name, lambda: self._ask(variant, number, batch, questions)
        )
        if known:
            self._context.reporter.advance(self._task.evaluate.max_new_tokens)
        return samples

    def _ask(
        self, variant: Variant, number: int, batch: int, questions: Sequence[dict[str, Any]]
    ) -> list[Sample]:
        model = self._loaded()
        seed = self._task.evaluate.seed + 7919 * number + batch
        with model.disable_adapter() if variant == "base" else nullcontext():
            answers = generate(
                model,
                [question["prompt_ids"] for question in questions],
                self._task.evaluate,
                seed=seed,
                end=[int(self._inputs.prep.metrics["end_token"] or 0)],
                context=self._context,
            )
        return [
            Sample(
                question_id=question["id"],
                variant=variant,
                sample=number,
                text=self._tokenizer.decode(ids, skip_special_tokens=False),
                prompt_opens_think=self._task.model.thinks,
                tokens=len(ids),
                finished=finished,
                reference=question["reference"],
            )
            for question, (ids, finished) in zip(questions, answers, strict=True)
        ]

    def _loaded(self) -> PeftModel:
        """The model, loaded when the first batch needs it: a finished evaluation needs none."""
        if self._model is None:
            device = local_device()
            dtype = compute_dtype(self._task.dtype, device)
            self._context.reporter.say(f"loads {self._task.model.repo} ({self._task.base})")
            base = load_base(self._weights, self._task.base, dtype, device, attention="sdpa")
            unpack_on_cpu(base)
            model = PeftModel.from_pretrained(base, str(self._inputs.folder / "train"))
            self._model = model.eval()
            self._context.reporter.say(f"{device_name(device)}, {dtype}".replace("torch.", ""))
        return self._model


def _write(
    task: EvaluateTask,
    inputs: Inputs,
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    output: Path,
) -> dict[str, Any]:
    report = build_report(
        run=task.run,
        model=task.model.repo,
        spec=task.evaluate,
        marker=task.final_answer,
        questions=[
            Question(
                id=q["id"], question=q["question"], answer=q["answer"], reference=q["reference"]
            )
            for q in inputs.questions
        ],
        samples=samples,
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        versions=versions(),
    )
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (output / "report.json").write_text(text, encoding="utf-8")
    rows = (inputs.folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    card = json.loads((inputs.folder / "prep" / "card.json").read_text(encoding="utf-8"))
    write_html(report, [json.loads(row) for row in rows], card["lengths"], output / "report.html")
    with (output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    return report


def _metrics(report: dict[str, Any]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"questions": report["questions"]}
    for variant, figures in report["variants"].items():
        metrics[f"{variant}_presence"] = figures["presence"]
        metrics[f"{variant}_accuracy"] = figures["accuracy"]
    for name, test in report["tests"].items():
        metrics[f"{name}_mcnemar_p"] = test["p_exact"] if test else None
    return metrics
