"""The prep stage: dataset → examples → text → tokens → shards, with every dropped row counted.

Order: filter, map, require a think part, remove duplicates, render and tokenize, balance, hold
out, sample. Files of the artifact: `train-00000.parquet` …, `validation-00000.parquet` …,
`test.parquet`, `prompt.json`, `card.json`, `card.md`.
"""

import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import thinktune
from thinktune.schema.catalog import ColumnMap, Format
from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.recipe import DataSpec
from thinktune.schema.stages import PrepTask
from thinktune.store import commit
from thinktune.tasks.prep import selection
from thinktune.tasks.prep.card import Card, write_card
from thinktune.tasks.prep.conversations import CONVERSATIONAL
from thinktune.tasks.prep.models import cached_model
from thinktune.tasks.prep.readers import Row
from thinktune.tasks.prep.rows import (
    HEAD_ROWS,
    Example,
    check_columns,
    completed,
    detect_format,
    question_key,
    to_example,
    with_distinct_ids,
)
from thinktune.tasks.prep.shards import write_questions, write_shards
from thinktune.tasks.prep.sources import Source, open_source
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.text.conversation import Reason, Unusable
from thinktune.text.templates import Rendered, Renderer
from thinktune.text.tokens import Encoded, Encoder, fitted

REASONING_DROPPED = Reason(
    "no complete think part",
    "answers need <think>…</think> before them, or map data.columns.reasoning; to train without"
    " reasoning set data.require_reasoning=false",
)
DUPLICATE = Reason("duplicate question")
NOT_SAMPLED = Reason("not sampled")
SHARES_HELD_OUT = Reason("shares a held-out question")


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
        model = folder / "model"
        tokenizer = fetch_model(task.model, model_revision, context, model, weights=False)
        encoder = Encoder(tokenizer / "tokenizer.json")
        with open_source(task, context) as source:
            card = Card(source=source.revision, model=task.model_name)
            examples, layout = _examples(task, source, card, context)
            renderer = Renderer(task.model, task.data, conversations=layout in CONVERSATIONAL)
            prepared = _tokenized(task, examples, renderer, encoder, card, source, context)
            prepared = _balanced(task, prepared, card, source)
        parts = _split(task, prepared, card, source.place)
        card.template_sha256 = renderer.digest()
        output = folder / "output"
        facts = PromptFacts(
            stop_ids=(encoder.end_id(prepared[0].rendered.end),),
            template_sha256=card.template_sha256,
            opens_think=renderer.opens_think,
        )
        _write(output, parts, encoder, card, facts)
        revisions = {"model": model_revision, "dataset": source.revision}
        manifest = _commit(task, context, output, card, revisions)
    sizes = ", ".join(f"{size} {side}" for side, size in card.sizes.items())
    context.reporter.say(f"{sizes} examples of {card.rows} rows{card.dropped_text()}")
    return manifest


Sides = tuple[list[Prepared], list[Prepared], list[Prepared]]
"""Training, validation, test."""


def _write(output: Path, sides: Sides, encoder: Encoder, card: Card, facts: PromptFacts) -> None:
    output.mkdir()
    train, validation, test = sides
    (output / PROMPT_FILE).write_text(facts.model_dump_json(indent=1), encoding="utf-8")
    for name, side in (("train", train), ("validation", validation)):
        write_shards(output, name, [p.example.id for p in side], [p.encoded for p in side])
    questions = [(p.example, p.rendered, encoder.prompt_ids(p.rendered.prompt)) for p in test]
    write_questions(output / "test.parquet", questions)
    write_card(output, card, [(p.rendered, p.encoded) for p in train])


def _commit(
    task: PrepTask,
    context: Context,
    output: Path,
    card: Card,
    revisions: dict[str, str],
) -> Manifest:
    libraries = {name: version(name) for name in ("tokenizers", "pyarrow")}
    return commit(
        context.store,
        stage_prefix(task.run, "prep"),
        output,
        kind="prep",
        run=task.run,
        attempt=context.attempt,
        inputs={},
        task_sha256=task.result_digest(),
        template_sha256=card.template_sha256,
        revisions=revisions,
        versions={"thinktune": thinktune.__version__, **libraries},
        metrics=card.counts(),
        created=utc_now(),
    )


def _examples(
    task: PrepTask, source: Source, card: Card, context: Context
) -> tuple[list[Example], Format]:
    head = list(islice(source.rows, HEAD_ROWS))
    layout, columns = _layout(task, head, source.place)
    examples: list[Example] = []
    known: set[str] = set()
    for row in chain(head, source.rows):
        card.rows += 1
        if card.rows % 256 == 0:
            context.stop.check("prep")
        known.update(row)
        try:
            examples.append(_example(row, task.data, layout, columns))
        except Unusable as unusable:
            card.drop(unusable.reason)
    if card.rows:
        selection.check_columns(task.data.filters, task.data.balance, known, source.place)
    if task.data.deduplicate:
        examples, duplicates = selection.deduplicated(examples, question_key)
        card.drop(DUPLICATE, duplicates)
    _some(examples, card, source.place)
    return with_distinct_ids(examples), layout


def _layout(task: PrepTask, head: list[Row], place: str) -> tuple[Format, ColumnMap]:
    """How rows are laid out, by the recipe, the catalog or the first rows."""
    own_file = task.data.path is not None
    columns = task.dataset.columns.model_copy(
        update={k: v for k, v in task.data.columns.model_dump().items() if v is not None}
    )
    layout = task.data.format or (detect_format(head, columns) if own_file else task.dataset.format)
    if head:
        check_columns(head, layout, columns, place)
    return layout, completed(head, layout, columns, own_file=own_file)


def _example(row: Row, data: DataSpec, layout: Format, columns: ColumnMap) -> Example:
    """The row in our shape, if the recipe wants it. Raises Unusable."""
    reason = selection.passes(row, data.filters)
    if reason is not None:
        raise Unusable(reason)
    example = to_example(row, layout, columns)
    if example.reasoning is None and data.require_reasoning:
        raise Unusable(REASONING_DROPPED)
    return example


def _tokenized(
    task: PrepTask,
    examples: list[Example],
    renderer: Renderer,
    encoder: Encoder,
    card: Card,
    source: Source,
    context: Context,
) -> list[Prepared]:
    prepared = []
    context.reporter.phase("tokenize", len(examples), "rows")
    for example in examples:
        context.stop.check("prep")
        try:
            rendered = renderer.render(example)
            rendered, encoded, cut = fitted(
                encoder, rendered, task.data.max_tokens, task.data.too_long
            )
        except Unusable as unusable:
            card.drop(unusable.reason)
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
    for reason, count in dropped.items():
        card.drop(reason, count)
    return kept


def _split(task: PrepTask, prepared: list[Prepared], card: Card, place: str) -> Sides:
    parts = selection.split([p.key for p in prepared], task.data.split, place)
    train = [prepared[i] for i in parts.train]
    if task.data.sample_rows is not None and len(train) > task.data.sample_rows:
        seed = task.data.split.seed
        ranked = sorted(train, key=lambda p: selection.order(p.key, seed, "sample"))
        card.drop(NOT_SAMPLED, len(train) - task.data.sample_rows)
        train = ranked[: task.data.sample_rows]
    held_out = {prepared[i].key for i in parts.test + parts.validation}
    if held_out & {p.key for p in train}:
        raise AssertionError("a held-out question is in training")
    card.sizes = {
        "training": len(train),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }
    others = len(prepared) - len(parts.train) - len(parts.validation) - len(parts.test)
    card.drop(SHARES_HELD_OUT, others)
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
    raise DataInvalid(place, fault, card.remedy())
