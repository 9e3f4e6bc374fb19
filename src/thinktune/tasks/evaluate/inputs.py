"""What an evaluation reads: the artifacts of prep and train, and the held-out questions."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from thinktune.schema.errors import DataInvalid, InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PromptFacts
from thinktune.schema.stages import EvaluateTask
from thinktune.store import fetch, manifest_digest
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
    """Rows of prep's test.parquet."""

    def digests(self) -> dict[str, str]:
        """What pins the artifacts."""
        return {"prep": manifest_digest(self.prep), "train": manifest_digest(self.train)}

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
    return Inputs(prep, train, folder, facts, rows)


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


def asked_in_words(row: dict[str, Any], instruction: str, encoder: Encoder) -> list[int]:
    """The prompt of a row with the instruction behind its question, as token ids."""
    pieces = [Piece(piece["text"], piece["control"]) for piece in row["pieces"]]
    last = max(n for n, piece in enumerate(pieces) if not piece.control)
    pieces[last] = Piece(f"{pieces[last].text}\n\n{instruction}", control=False)
    return encoder.prompt_ids(pieces)
