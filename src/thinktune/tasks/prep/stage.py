"""The prep stage: dataset → examples → text → tokens → shards, with every dropped row counted.

Order: filter, map, require a think part, remove duplicates, render and tokenise, balance, hold
out, sample. Files of the artifact: `train-00000.parquet` …, `validation.parquet`, `test.parquet`,
`card.json`, `card.md`.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import thinktune
from thinktune.spec.catalog import Format
from thinktune.spec.errors import DataInvalid
from thinktune.spec.keys import stage_prefix
from thinktune.spec.manifest import Manifest
from thinktune.spec.task import PrepTask
from thinktune.store import commit
from thinktune.tasks.cache import fetch_model
from thinktune.tasks.entry import Context
from thinktune.tasks.prep import selection
from thinktune.tasks.prep.card import Card, write_card
from thinktune.tasks.prep.models import cached_model
from thinktune.tasks.prep.rows import (
    Example,
    Unusable,
    check_columns,
    detect_format,
    question_key,
    to_example,
)
from thinktune.tasks.prep.shards import write_questions, write_shards
from thinktune.tasks.prep.sources import Source, open_source
from thinktune.tasks.prep.template import Rendered, Renderer
from thinktune.tasks.prep.tokens import Encoded, Encoder, fitted
from thinktune.tasks.progress import utc_now

REASONING_DROPPED = "no complete think part"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One example on its way through: as it came, as text, as tokens."""

    example: Example
    key: str
    rendered: Rendered
    encoded: Encoded


def run(task: PrepTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    model_revision = cached_model(task, context)
    with tempfile.TemporaryDirectory(prefix="thinktune-prep-") as temporary:
        folder = Path(temporary)
        tokenizer = folder / "tokenizer"
        fetch_model(task.model, model_revision, context, tokenizer, weights=False)
        encoder = Encoder(tokenizer / "tokenizer.json")
        with open_source(task, context) as source:
            card = Card(source=source.revision, model=task.model_name)
            examples, layout = _examples(task, source, card, context)
            renderer = Renderer(
                task.model, task.data, conversations=layout in ("messages", "sharegpt")
            )
            prepared = _tokenised(task, examples, renderer, encoder, card, source, context)
            prepared = _balanced(task, prepared, card, source)
        parts = _split(task, prepared, card, source.place)
        output = folder / "output"
        output.mkdir()
        write_shards(
            output, "train", [p.example.id for p in parts[0]], [p.encoded for p in parts[0]]
        )
        write_shards(
            output, "validation", [p.example.id for p in parts[1]], [p.encoded for p in parts[1]]
        )
        write_questions(
            output / "test.parquet",
            [(p.example, p.rendered, encoder.prompt(p.rendered.prompt)) for p in parts[2]],
        )
        card.template_sha256 = renderer.digest()
        write_card(output, card, [(p.rendered, p.encoded) for p in parts[0]])
        manifest = commit(
            context.store,
            stage_prefix(task.run, "prep"),
            output,
            kind="prep",
            run=task.run,
            attempt=context.attempt,
            inputs={},
            task_sha256=task.result_digest(),
            template_sha256=card.template_sha256,
            revisions={"model": model_revision, "dataset": source.revision},
            versions={
                "thinktune": thinktune.__version__,
                **{name: version(name) for name in ("tokenizers", "pyarrow")},
            },
            metrics={**card.counts(), "end_token": encoder.end_id(prepared[0].rendered.end)},
            created=utc_now(),
        )
    context.reporter.say(
        f"{len(parts[0])} training, {len(parts[1])} validation, {len(parts[2])} test examples"
        f" of {card.rows} rows" + card.dropped_text()
    )
    return manifest


def _examples(
    task: PrepTask, source: Source, card: Card, context: Context
) -> tuple[list[Example], Format]:
    columns = task.dataset.columns.model_copy(
        update={k: v for k, v in task.data.columns.model_dump().items() if v is not None}
    )
    layout: Format | None = task.data.format or (
        task.dataset.format if task.data.path is None else None
    )
    examples: list[Example] = []
    for row in source.rows:
        if card.rows == 0:
            layout = layout or detect_format(row)
            check_columns(row, layout, columns, source.place)
        card.rows += 1
        if card.rows % 256 == 0:
            context.stop.check("prep")
        reason = selection.passes(row, task.data.filters, source.place)
        if reason is None:
            try:
                example = to_example(row, layout or "columns", columns)
            except Unusable as unusable:
                reason = str(unusable)
            else:
                if example.reasoning is None and task.data.require_reasoning:
                    reason = REASONING_DROPPED
                else:
                    examples.append(example)
        if reason is not None:
            card.dropped[reason] += 1
    if task.data.deduplicate:
        examples, duplicates = selection.deduplicated(examples, question_key)
        card.drop("duplicate question", duplicates)
    _some(examples, card, source.place)
    return examples, layout or "columns"


def _tokenised(
    task: PrepTask,
    examples: list[Example],
    renderer: Renderer,
    encoder: Encoder,
    card: Card,
    source: Source,
    context: Context,
) -> list[Prepared]:
    prepared = []
    context.reporter.phase("tokenise", len(examples), "rows")
    for example in examples:
        context.stop.check("prep")
        try:
            rendered = renderer.render(example)
            rendered, encoded, cut = fitted(
                encoder, rendered, task.data.max_tokens, task.data.too_long
            )
        except Unusable as unusable:
            card.dropped[str(unusable)] += 1
        else:
            card.truncated += cut
            prepared.append(Prepared(example, question_key(example), rendered, encoded))
        context.reporter.advance()
    _some(prepared, card, source.place)
    return prepared


def _balanced(
    task: PrepTask, prepared: list[Prepared], card: Card, source: Source
) -> list[Prepared]:
    if task.data.balance is None:
        return prepared
    kept, dropped = selection.balanced(
        prepared, task.data.balance, lambda p: p.key, lambda p: p.example.row, source.place
    )
    card.dropped.update(dropped)
    return kept


def _split(
    task: PrepTask, prepared: list[Prepared], card: Card, place: str
) -> tuple[list[Prepared], list[Prepared], list[Prepared]]:
    parts = selection.split([p.key for p in prepared], task.data.split, place)
    train = [prepared[i] for i in parts.train]
    if task.data.sample_rows is not None and len(train) > task.data.sample_rows:
        seed = task.data.split.seed
        ranked = sorted(train, key=lambda p: selection.order(p.key, seed, "sample"))
        card.drop("not sampled", len(train) - task.data.sample_rows)
        train = ranked[: task.data.sample_rows]
    held_out = {prepared[i].key for i in parts.test + parts.validation}
    if held_out & {p.key for p in train}:
        raise AssertionError("a held-out question is in training")
    card.sizes = {
        "train": len(train),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }
    others = len(prepared) - len(parts.train) - len(parts.validation) - len(parts.test)
    card.drop("shares a held-out question", others)
    return (
        train,
        [prepared[i] for i in parts.validation],
        [prepared[i] for i in parts.test],
    )


def _some(left: list[Example] | list[Prepared], card: Card, place: str) -> None:
    """Fails where nothing is left, with the reasons in order of weight."""
    if left:
        return
    if card.rows == 0:
        raise DataInvalid(place, "the dataset has no rows", "check data.path or data.dataset")
    reasons = ", ".join(f"{reason}: {n}" for reason, n in card.dropped.most_common(4))
    fault = f"none of {card.rows} rows is left ({reasons})"
    raise DataInvalid(place, fault, _remedy(card.dropped))


def _remedy(dropped: Counter[str]) -> str:
    most = dropped.most_common(1)[0][0]
    if most == REASONING_DROPPED:
        return (
            "answers need <think>…</think> before them, or map data.columns.reasoning; to train"
            " without reasoning set data.require_reasoning=false"
        )
    if most.startswith("filter on"):
        return "loosen data.filters"
    if most.startswith("longer than"):
        return "raise data.max_tokens, or set data.too_long=truncate"
    if most.startswith("no "):
        return f"map data.columns.{most[3:]}, or change data.prompt and data.answer"
    return "check data.format and data.columns"
