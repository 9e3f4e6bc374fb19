"""The evaluate stage: base and tuned answer the held-out questions, and the report says what came.

Both get the same prompts, sampling and stop ids from one engine. Files of the artifact:
`report.json`, `report.html`, `samples.jsonl`.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import parts_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.report import VARIANTS, Report, Variant
from thinktune.schema.stages import EvaluateTask
from thinktune.store import commit, fetch, manifest_digest
from thinktune.tasks.evaluate.metrics.registry import Registry
from thinktune.tasks.evaluate.report.build import build_report, manifest_metrics
from thinktune.tasks.evaluate.report.page import write_html
from thinktune.tasks.evaluate.report.wording import terminal_summary
from thinktune.tasks.evaluate.samples import Question, Sample
from thinktune.tasks.generate.answers import AnswerStore, generate
from thinktune.tasks.generate.protocol import Batch, Engine, Request, Sampling
from thinktune.tasks.generate.transformers import TransformersEngine
from thinktune.tasks.model.base import versions
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.tasks.runtime.progress import utc_now

SEED_STRIDE = 7919
"""Between the seeds of two answers to one question: more than there are batches, as a rule."""


@dataclass(frozen=True)
class Inputs:
    """The artifacts that are judged."""

    prep: Manifest
    train: Manifest
    folder: Path
    """Holds their files, under `prep` and `train`."""
    facts: PromptFacts
    questions: list[dict[str, Any]]
    """Rows of prep's test.parquet."""

    def digests(self) -> dict[str, str]:
        """What pins the artifacts."""
        return {"prep": manifest_digest(self.prep), "train": manifest_digest(self.train)}


def run(task: EvaluateTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    with tempfile.TemporaryDirectory(prefix="thinktune-evaluate-") as temporary:
        folder = Path(temporary)
        inputs = _inputs(task, context, folder)
        weights = fetch_model(
            task.model, inputs.prep.revisions["model"], context, folder / "model", weights=True
        )
        tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        engine = TransformersEngine(
            weights, folder / "train", repo=task.model.repo, base=task.base, dtype=task.dtype
        )
        samples = ask(task, context, inputs, engine, tokenizer)
        output = folder / "output"
        output.mkdir()
        report = _write(task, inputs, samples, engine, tokenizer, output)
        manifest = commit(
            context.store,
            stage_prefix(task.run, "evaluate"),
            output,
            kind="evaluate",
            run=task.run,
            attempt=context.attempt,
            inputs=inputs.digests(),
            task_sha256=task.result_digest(),
            template_sha256=inputs.prep.template_sha256,
            revisions=inputs.prep.revisions,
            versions=versions(),
            metrics=manifest_metrics(report),
            created=utc_now(),
        )
    context.reporter.say("done\n\n" + terminal_summary(report))
    return manifest


def _inputs(task: EvaluateTask, context: Context, folder: Path) -> Inputs:
    prep = stage_manifest(context.store, task.run, "prep")
    train = stage_manifest(context.store, task.run, "train")
    facts = prompt_facts(context.store, task.run, prep, folder / "prep")
    prefix = stage_prefix(task.run, "prep")
    fetch(context.store, prefix, prep, folder / "prep", names=["test.parquet", "card.json"])
    fetch(context.store, stage_prefix(task.run, "train"), train, folder / "train")
    questions = pq.read_table(folder / "prep" / "test.parquet").to_pylist()
    questions = questions[: task.evaluate.questions]
    if not questions:
        fault = "no question was held out"
        raise DataInvalid("prep", fault, "set data.split.test_rows and run again")
    return Inputs(prep, train, folder, facts, questions)


def ask(
    task: EvaluateTask, context: Context, inputs: Inputs, engine: Engine, tokenizer: Tokenizer
) -> list[Sample]:
    """The answers of both models to all questions, those of an earlier attempt included."""
    sampling = Sampling(
        temperature=task.evaluate.temperature,
        top_p=task.evaluate.top_p,
        max_new_tokens=task.evaluate.max_new_tokens,
        stop_ids=inputs.facts.stop_ids,
    )
    decides = [task.result_digest(), *inputs.digests().values(), engine.name, sampling.digest()]
    identity = hashlib.sha256("\n".join(decides).encode()).hexdigest()
    kept = AnswerStore(context.store, parts_prefix(task.run), identity)
    # Neighbors in length share a batch, so that little is padding.
    questions = sorted(inputs.questions, key=lambda row: (len(row["prompt_ids"]), row["id"]))
    samples: list[Sample] = []
    for variant in VARIANTS:
        asked = _draws(task, variant, questions)
        answers = generate(
            engine,
            [draw.batch for draw in asked],
            sampling,
            kept,
            context,
            phase=f"generate {variant}",
        )
        rows = [(draw.number, row) for draw in asked for row in draw.questions]
        for (number, row), answer in zip(rows, answers, strict=True):
            samples.append(
                Sample(
                    question_id=row["id"],
                    variant=variant,
                    sample=number,
                    text=tokenizer.decode(list(answer.ids), skip_special_tokens=False),
                    prompt_opens_think=inputs.facts.opens_think,
                    tokens=len(answer.ids),
                    finished=answer.finished,
                    reference=row["reference"],
                )
            )
    return samples


@dataclass(frozen=True)
class _Draw:
    """A batch, and the questions of its requests."""

    batch: Batch
    number: int
    """Which of the answers to these questions, from 0."""
    questions: Sequence[dict[str, Any]]


def _draws(
    task: EvaluateTask, variant: Variant, questions: Sequence[dict[str, Any]]
) -> list[_Draw]:
    size = task.evaluate.batch_size
    draws = []
    for number in range(task.evaluate.samples):
        for position, start in enumerate(range(0, len(questions), size)):
            some = questions[start : start + size]
            name = f"{variant}-{number:03d}-{position:05d}"
            batch = Batch(
                id=name,
                requests=tuple(
                    Request(f"{name}/{row['id']}", tuple(row["prompt_ids"])) for row in some
                ),
                seed=task.evaluate.seed + SEED_STRIDE * number + position,
                adapter=variant == "tuned",
            )
            draws.append(_Draw(batch, number, some))
    return draws


def _write(
    task: EvaluateTask,
    inputs: Inputs,
    samples: Sequence[Sample],
    engine: Engine,
    tokenizer: Tokenizer,
    output: Path,
) -> Report:
    report = build_report(
        run=task.run,
        model=task.model.repo,
        engine=engine.name,
        spec=task.evaluate,
        marker=task.final_answer,
        questions=[
            Question(
                id=row["id"],
                question=row["question"],
                answer=row["answer"],
                reference=row["reference"],
            )
            for row in inputs.questions
        ],
        samples=samples,
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        versions=versions(),
        metrics=Registry.discover(),
    )
    text = json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (output / "report.json").write_text(text, encoding="utf-8")
    rows = (inputs.folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    card = json.loads((inputs.folder / "prep" / "card.json").read_text(encoding="utf-8"))
    write_html(report, [json.loads(row) for row in rows], card["lengths"], output / "report.html")
    with (output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    return report
