"""What an evaluation reads: the artifacts of prep and train, and the held-out questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from thinktune.schema.errors import DataInvalid, InputMissing
from thinktune.schema.keys import beside_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.stages import BENCHMARKS, EvaluateTask
from thinktune.store import fetch, manifest_digest, read_manifest
from thinktune.tasks.evaluate.samples import Question
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.inputs import prompt_facts, stage_manifest
from thinktune.text.templates import Piece
from thinktune.text.tokens import Encoder


@dataclass(frozen=True)
class Inputs:
    """The artifacts that are judged."""

    prep: Manifest
    train: Manifest
    folder: Path
    """Holds their files, under `prep` and `train`."""
    facts: PromptFacts
    rows: list[dict[str, Any]]
    """Rows of prep's test.parquet, or of a benchmark's questions in the same columns."""
    benchmark: Manifest | None = None
    """The benchmark whose questions these are; None for the held-out ones."""
    behind: str = ""
    """What a benchmark says behind each question, which stays the last that is said."""
    benchmarks: Mapping[str, "Inputs"] = field(default_factory=dict)
    """The same artifacts with the questions of each benchmark of a dataset."""

    def digests(self) -> dict[str, str]:
        """What decides the answers to these questions, beside the questions themselves."""
        own = {"prep": manifest_digest(self.prep), "train": manifest_digest(self.train)}
        if self.benchmark is not None:
            own["benchmark"] = manifest_digest(self.benchmark)
        return own

    def pinned(self) -> dict[str, str]:
        """What pins all that an evaluation reads."""
        beside = {
            f"{BENCHMARKS}/{name}": each.digests()["benchmark"]
            for name, each in self.benchmarks.items()
        }
        return self.digests() | beside

    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all."""
        own = max(len(row["prompt_ids"]) for row in self.rows)
        return max([own, *(each.longest_prompt() for each in self.benchmarks.values())])

    @cached_property
    def questions(self) -> list[Question]:
        """The rows as judging needs them."""
        return [
            Question(
                id=row["id"],
                question=row["question"],
                answer=row["answer"],
                reference=row["reference"],
                group=row.get("group"),
            )
            for row in self.rows
        ]


def read_inputs(task: EvaluateTask, context: Context, folder: Path) -> Inputs:
    """Brings the artifacts to `folder`. Raises InputMissing for one that is not there or does not
    fit the other, DataInvalid where no question was held out."""
    prep = stage_manifest(context.store, task.run, "prep")
    train = stage_manifest(context.store, task.run, "train")
    _check_pair(task, prep, train)
    facts, rows = read_questions(task, context, prep, folder / "prep")
    fetch(context.store, stage_prefix(task.run, "train"), train, folder / "train")
    inputs = Inputs(prep, train, folder, facts, rows)
    found = {name: _benchmark(task, context, inputs, name) for name in task.benchmarks}
    return replace(inputs, benchmarks=found)


def read_questions(
    task: EvaluateTask, context: Context, prep: Manifest, folder: Path
) -> tuple[PromptFacts, list[dict[str, Any]]]:
    """What prep says of its prompts, and the rows of its test.parquet that are asked; its files are
    brought to the folder. Raises InputMissing, DataInvalid where no question was held out."""
    facts = prompt_facts(context.store, task.run, prep, folder)
    prefix = stage_prefix(task.run, "prep")
    fetch(context.store, prefix, prep, folder, names=["test.parquet", "card.json"])
    rows = pq.read_table(folder / "test.parquet").to_pylist()
    rows = rows[: task.evaluate.questions]
    if not rows:
        fault = "no question was held out"
        raise DataInvalid("prep", fault, "set data.split.test_rows and run again")
    if task.evaluate.instruction is not None or task.evaluate.endpoints:
        _check_pieces(rows[0])
    return facts, rows


def _benchmark(task: EvaluateTask, context: Context, inputs: Inputs, name: str) -> Inputs:
    """The questions of a benchmark. Raises InputMissing where prep made none, or others."""
    prefix = beside_prefix(task.run, f"{BENCHMARKS}/{name}")
    place = context.store.location(prefix)
    manifest = read_manifest(context.store, prefix)
    remedy = "run prep again, which then makes it"
    if manifest is None:
        raise InputMissing(place, f"benchmark {name} is not there", remedy)
    made_by = task.benchmarks[name].made_by(str(inputs.prep.task_sha256))
    of = {"prep": manifest_digest(inputs.prep)}
    if manifest.task_sha256 != made_by or manifest.inputs != of:
        fault = f"benchmark {name} was made by another recipe or beside another prep"
        raise InputMissing(place, fault, f"delete that artifact, and {remedy}")
    folder = inputs.folder / BENCHMARKS / name
    fetch(context.store, prefix, manifest, folder, names=["questions.parquet"])
    rows = pq.read_table(folder / "questions.parquet").to_pylist()
    behind = task.benchmarks[name].spec.asks_for(task.final_answer, options=True)
    return replace(inputs, rows=rows, benchmark=manifest, behind=behind)


def _check_pair(task: EvaluateTask, prep: Manifest, train: Manifest) -> None:
    """The adapter must have been trained on this base and with these prompts."""
    for what, of_prep, of_train in (
        ("model", prep.revisions.get("model"), train.revisions.get("model")),
        ("chat template", prep.template_sha256, train.template_sha256),
    ):
        if of_train is not None and of_prep != of_train:
            fault = f"was trained with another {what} ({of_train}) than prep's ({of_prep})"
            raise InputMissing(
                f"adapter of run {task.run}", fault, "train again, or name a new run"
            )


def _check_pieces(row: dict[str, Any]) -> None:
    """An older prep kept the prompt as one text, to which no words can be added."""
    if "pieces" not in row:
        fault = (
            "its questions hold no parts of the prompt, which evaluate.instruction and "
            "evaluate.endpoints need"
        )
        raise InputMissing("prep", fault, "delete that artifact and run prep again")


def asked_in_words(
    row: dict[str, Any], instruction: str, encoder: Encoder, behind: str = ""
) -> list[int]:
    """The prompt of a row with the instruction behind its question, as token ids. `behind`: as in
    `Inputs`."""
    pieces = [Piece(piece["text"], piece["control"]) for piece in row["pieces"]]
    last = max(n for n, piece in enumerate(pieces) if not piece.control)
    pieces[last] = Piece(with_instruction(pieces[last].text, instruction, behind), control=False)
    return encoder.prompt_ids(pieces)


def with_instruction(question: str, instruction: str, behind: str = "") -> str:
    """A turn with the instruction behind its question, before what a benchmark says there."""
    if behind and question.count(behind) == 1:
        return question.replace(behind, f"{instruction}\n\n{behind}")
    return f"{question}\n\n{instruction}"
