"""The prep stage: dataset → examples → text → tokens → shards, with every dropped row counted.

Each row by itself: filter, map, require a think part, render, tokenize (`preparation`). Then all of
them: remove duplicates, balance, hold out, sample. Files of the artifact: `train-00000.parquet` …,
`validation-00000.parquet` …, `test.parquet`, `prompt.json`, `card.json`, `card.html`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

import thinktune
from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.stages import PrepTask
from thinktune.store import commit, file_key
from thinktune.tasks.prep import selection
from thinktune.tasks.prep.batches import outcomes
from thinktune.tasks.prep.benchmarks import commit_benchmarks
from thinktune.tasks.prep.card import Card, write_card
from thinktune.tasks.prep.contamination import Contamination
from thinktune.tasks.prep.generated import with_generated
from thinktune.tasks.prep.ledger import EXAMPLES, Ledger
from thinktune.tasks.prep.models import cached_model
from thinktune.tasks.prep.near_duplicates import Groups, NearDuplicates
from thinktune.tasks.prep.preparation import Preparation
from thinktune.tasks.prep.recognition import recognized
from thinktune.tasks.prep.selection import Keys, Positions
from thinktune.tasks.prep.shards import write_questions, write_shards
from thinktune.tasks.prep.sources import Source, open_source
from thinktune.tasks.prep.spool import Spool
from thinktune.tasks.prep.test_sets import test_indexes
from thinktune.tasks.runtime.cache import fetch_model
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.text.conversation import Reason
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

BALANCE = Reason("balance", "loosen data.balance")
"""Rows beyond the number that each value has."""
NOT_SAMPLED = Reason("not sampled")
SHARES_HELD_OUT = Reason("shares a held-out question")


@dataclass(frozen=True, slots=True)
class Sides:
    """Positions in the spool."""

    train: Positions
    validation: Positions
    test: Positions


def run(task: PrepTask, context: Context) -> Manifest:
    """Runs the stage and commits its artifact."""
    model_revision = cached_model(task, context)
    with (
        tempfile.TemporaryDirectory(prefix="thinktune-prep-") as temporary,
        closing(Spool()) as spool,
    ):
        folder = Path(temporary)
        model = folder / "model"
        tokenizer = fetch_model(task.model, model_revision, context, model, weights=False)
        encoder = Encoder(tokenizer / "tokenizer.json")
        card = Card(task.model_name)
        with open_source(task, context) as source:
            card.source = source.revision
            card.name = source.place.rstrip("/").rpartition("/")[2]
            renderer = _prepared(task, source, encoder, spool, card, context)
            sides = _chosen(task, spool, card, source.place, context)
        card.contamination = _contamination(task, spool, sides, context)
        output = folder / "output"
        output.mkdir()
        groups = task.data.balance.values if task.data.balance is not None else ()
        _write(output, spool, sides, encoder, card, renderer, groups, context)
        revisions = {"model": model_revision, "dataset": source.revision}
        manifest = _commit(task, context, output, card, revisions)
        if task.benchmarks:
            _check_same_rows(task, context, manifest, revisions)
            commit_benchmarks(task, context, manifest, renderer, encoder, spool, sides.train)
    sizes = ", ".join(f"{size} {side}" for side, size in card.sizes.items())
    context.reporter.say(f"{sizes} examples of {card.ledger.rows} rows{card.ledger.text()}")
    place = file_key(context.store, stage_prefix(task.run, "prep"), manifest, "card.html")
    context.reporter.say(f"data card: {context.store.location(place)}")
    return manifest


def _prepared(
    task: PrepTask, source: Source, encoder: Encoder, spool: Spool, card: Card, context: Context
) -> Renderer:
    """All usable rows into the spool. Raises DataInvalid where too many are not."""
    data, ledger = task.data, card.ledger
    written = with_generated(source.records, task, context, ledger)
    layout, head, records = recognized(written, data, task.dataset, source.place)
    context.reporter.say(layout.line())
    card.layout = layout.line()
    renderer = Renderer(task.model, data, conversations=layout.conversational)
    split = data.split
    compares = bool(split.test_rows or split.validation_rows or data.test_sets or task.benchmarks)
    preparation = Preparation(data, layout, renderer, encoder, compares=compares)
    columns = selection.SeenColumns()
    expected = data.expected_rows or task.dataset.rows or source.about(head)
    context.reporter.phase("read and tokenize", expected, "rows")
    seen = columns.of(records)
    for outcome in outcomes(preparation, seen, context.stop, context.reporter):
        ledger.take(outcome)
        for prepared in outcome.prepared:
            spool.append(prepared)
    if ledger.rows:
        selection.check_columns(data.filters, data.balance, columns.names, source.place)
    ledger.check(data.max_bad_fraction, source.place)
    ledger.check_left(len(spool), source.place)
    card.template_sha256 = renderer.digest()
    return renderer


def _chosen(task: PrepTask, spool: Spool, card: Card, place: str, context: Context) -> Sides:
    """Which of the usable rows are learned, and which are held out."""
    data, ledger = task.data, card.ledger
    keys = spool.keys()
    left = np.arange(len(spool))
    if data.deduplicate:
        left = selection.first_of_each(keys)
        _leave_out(ledger, selection.DUPLICATE, spool, np.setdiff1d(np.arange(len(keys)), left))
    if data.balance is not None:
        values = spool.balance()[left]
        others = Reason(f"{data.balance.column} not among the balanced values")
        _leave_out(ledger, others, spool, left[values < 0])
        chosen, card.balance = selection.balanced(keys[left], values, data.balance, place)
        beyond = np.setdiff1d(np.flatnonzero(values >= 0), chosen)
        _leave_out(ledger, BALANCE, spool, left[beyond])
        left = left[chosen]
    holds_out = data.split.test_rows + data.split.validation_rows > 0
    asked = _groups(spool, left, card, context) if holds_out else keys[left]
    parts = selection.split(asked, data.split, place)
    train = left[parts.train]
    if data.sample_rows is not None and len(train) > data.sample_rows:
        ranked = np.argsort(selection.ranks(keys[train], data.split.seed, "sample"), kind="stable")
        _leave_out(ledger, NOT_SAMPLED, spool, train[ranked[data.sample_rows :]])
        train = train[ranked[: data.sample_rows]]
    sided = np.concatenate([parts.train, parts.validation, parts.test])
    _leave_out(ledger, SHARES_HELD_OUT, spool, left[np.setdiff1d(np.arange(len(left)), sided)])
    card.sizes = {
        "training": len(train),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }
    return Sides(train, left[parts.validation], left[parts.test])


def _leave_out(ledger: Ledger, reason: Reason, spool: Spool, positions: Positions) -> None:
    """Counts usable rows that the recipe leaves out, with the places of the first ones."""
    first = np.sort(positions)[:EXAMPLES].tolist()
    for position in first:
        ledger.drop(reason, spool[position].place, bad=False)
    ledger.drop(reason, bad=False, count=len(positions) - len(first))


def _groups(spool: Spool, left: Positions, card: Card, context: Context) -> Keys:
    """A key for each row that is the same for rewordings of one question."""
    stop = context.stop
    context.reporter.phase("compare questions", len(left), "rows")
    with closing(NearDuplicates()) as near:
        for position in left.tolist():
            stop.check("prep")
            near.add(spool.signature(position))
            context.reporter.advance()
        groups: Groups = near.groups(lambda: stop.check("prep"))
    card.joined = groups.joined
    card.near_duplicates = [
        (spool[int(left[one])].question, spool[int(left[other])].question)
        for one, other in groups.examples[: card.NEAR_DUPLICATES]
    ]
    return groups.keys


def _contamination(
    task: PrepTask, spool: Spool, sides: Sides, context: Context
) -> Contamination | None:
    """Training rows that the named test sets know."""
    indexes = test_indexes(task, context, spool, sides.test)
    if not indexes:
        return None
    found = Contamination()
    context.reporter.phase("test sets", len(sides.train), "rows")
    for position in sides.train.tolist():
        context.stop.check("prep")
        prepared = spool[position]
        rendered = prepared.rendered
        text = f"{rendered.content()}\n{rendered.reasoning}\n{rendered.answer}"
        for index in indexes:
            found.add(index.match(prepared.id, text, prepared.signature))
        context.reporter.advance()
    return found


def _write(
    output: Path,
    spool: Spool,
    sides: Sides,
    encoder: Encoder,
    card: Card,
    renderer: Renderer,
    groups: Sequence[str],
    context: Context,
) -> None:
    """All files of the artifact. `groups` are the values that the recipe balances."""
    everything = np.concatenate([sides.train, sides.validation, sides.test])
    names = spool.distinct_ids(everything)
    facts = PromptFacts(
        stop_ids=(encoder.end_id(renderer.end),),
        template_sha256=card.template_sha256,
        opens_think=renderer.opens_think,
        template=renderer.template(card.model),
    )
    (output / PROMPT_FILE).write_text(facts.model_dump_json(indent=1), encoding="utf-8")
    for name, side in (("train", sides.train), ("validation", sides.validation)):
        write_shards(output, name, spool, side, names, context.stop)
    write_questions(output / "test.parquet", spool, sides.test, names, groups)
    write_card(output, card, spool, sides.train)


def _check_same_rows(
    task: PrepTask, context: Context, manifest: Manifest, revisions: Mapping[str, str]
) -> None:
    """A run that gains a benchmark finds its earlier artifact, whose rows must be those that are
    compared with the benchmark now. Raises InputMissing."""
    if manifest.revisions != revisions:
        place = context.store.location(stage_prefix(task.run, "prep"))
        fault = f"it is of {manifest.revisions}, and the hub has {dict(revisions)} by now"
        remedy = "leave the benchmark out, or make another run of what the hub has now"
        raise InputMissing(place, fault, remedy)


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
        metrics={**card.counts(), "planned_s": task.planned_s},
        created=utc_now(),
    )
