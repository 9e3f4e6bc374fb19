"""The benchmarks of a recipe: their questions, rendered as the run's own, each an artifact of its
own beside that of prep.

Called by `stage` when prep's artifact is committed. Files of such an artifact: `questions.parquet`,
in the columns of test.parquet, and `contamination.json`, which lists training rows that are like
one of the questions.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.schema.benchmark import BenchmarkSource
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import beside_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import BENCHMARKS, PrepTask
from thinktune.store import commit, manifest_digest
from thinktune.tasks.prep.card import contamination_data
from thinktune.tasks.prep.contamination import Contamination, TestIndex
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.prep.preparation import Prepared, asked_of
from thinktune.tasks.prep.recognition import recognized
from thinktune.tasks.prep.rows import Example, examples_of, question_key
from thinktune.tasks.prep.selection import Positions, order
from thinktune.tasks.prep.shards import QUESTIONS
from thinktune.tasks.prep.sources import Source, open_dataset
from thinktune.tasks.prep.spool import Spool
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now
from thinktune.text.conversation import Unusable
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

QUESTIONS_FILE = "questions.parquet"
MOST_BAD = 0.01
"""Share of a benchmark's rows that may be of no use."""
SEED = 0
"""Of the draw of questions, which is the same for every run, so that their figures compare."""


def commit_benchmarks(
    task: PrepTask,
    context: Context,
    prep: Manifest,
    renderer: Renderer,
    encoder: Encoder,
    spool: Spool,
    train: Positions,
) -> None:
    """Commits what is not there yet of the task's benchmarks. `prep` is the artifact of this run's
    prep, `train` where its training rows are in the spool.

    Raises DataInvalid where a dataset cannot be read, and what the hub and the store raise.
    """
    for name, benchmark in task.benchmarks.items():
        place = f"evaluate.benchmarks.{name}"
        with tempfile.TemporaryDirectory(prefix="thinktune-benchmark-") as temporary:
            folder = Path(temporary)
            source = open_dataset(benchmark.entry, context, folder / "data")
            examples = _examples(benchmark, source, place)
            rows = [_row(example, benchmark, renderer, encoder, task) for example in examples]
            output = folder / "output"
            output.mkdir()
            pq.write_table(pa.Table.from_pylist(rows, schema=QUESTIONS), output / QUESTIONS_FILE)
            found = _contamination(name, examples, spool, train, context)
            listed = json.dumps(contamination_data(found), indent=1, ensure_ascii=False)
            (output / "contamination.json").write_text(listed, encoding="utf-8")
            alike = found.counts[name].total()
            _commit(task, context, prep, name, output, source.revision, len(rows), alike)
        context.reporter.say(
            f"benchmark {name}: {len(rows)} questions of {source.revision};"
            f" {alike} of {len(train)} training rows are like one of them"
        )


def _examples(benchmark: BenchmarkSource, source: Source, place: str) -> list[Example]:
    """The questions that are asked. Raises DataInvalid where too many cannot be: a score over some
    of a benchmark is no score of it."""
    data = DataSpec(dataset=str(benchmark.spec.dataset), require_reasoning=False)
    layout, _, records = recognized(source.records, data, benchmark.entry, source.place)
    ledger = Ledger()
    found: dict[str, Example] = {}
    for record in records:
        ledger.rows += 1
        try:
            example = examples_of(record.read(), layout, data).examples[-1]
        except Unusable as unusable:
            ledger.drop(unusable.reason, record.place, bad=True)
        else:
            found.setdefault(question_key(example), example)
    try:
        ledger.check(MOST_BAD, source.place)
    except DataInvalid as error:
        remedy = "correct the dataset's entry in the catalog, or take another one"
        raise DataInvalid(place, error.fault, remedy) from None
    ranked = sorted(found, key=lambda key: order(key, SEED, "benchmark"))
    return [found[key] for key in ranked[: benchmark.spec.questions]]


def _row(
    example: Example,
    benchmark: BenchmarkSource,
    renderer: Renderer,
    encoder: Encoder,
    task: PrepTask,
) -> dict[str, object]:
    """A row of the file: what is asked, and what is held against the answer."""
    options = example.options is not None
    behind = benchmark.spec.asks_for(task.data.final_answer, options=options)
    rendered = renderer.with_answers_checked(behind, options=options).render(example)
    return {
        "id": question_key(example)[:16],
        "question": f"{example.question}\n\n{example.options}" if options else example.question,
        "pieces": [asdict(piece) for piece in rendered.prompt],
        "group": None,
        "prompt_ids": encoder.prompt_ids(rendered.prompt),
        "reasoning": rendered.reasoning,
        "answer": example.answer,
        "reference": example.answer,
    }


def _contamination(
    name: str, examples: Sequence[Example], spool: Spool, train: Positions, context: Context
) -> Contamination:
    asked = ((question_key(example)[:16], asked_of(example)) for example in examples)
    index, found = TestIndex(name, asked), Contamination()
    context.reporter.phase(f"benchmark {name}", len(train), "rows")
    for prepared in _rows(spool, train, context):
        rendered = prepared.rendered
        text = f"{rendered.content()}\n{rendered.reasoning}\n{rendered.answer}"
        found.add(index.match(prepared.id, text, prepared.signature))
    return found


def _rows(spool: Spool, train: Positions, context: Context) -> Iterator[Prepared]:
    for position in train.tolist():
        context.stop.check("prep")
        yield spool[position]
        context.reporter.advance()


def _commit(
    task: PrepTask,
    context: Context,
    prep: Manifest,
    name: str,
    output: Path,
    revision: str,
    questions: int,
    alike: int,
) -> None:
    beside = f"{BENCHMARKS}/{name}"
    commit(
        context.store,
        beside_prefix(task.run, beside),
        output,
        kind="benchmark",
        run=task.run,
        attempt=context.attempt,
        inputs={"prep": manifest_digest(prep)},
        task_sha256=task.commits_beside()[beside],
        template_sha256=prep.template_sha256,
        revisions={"dataset": revision},
        versions=prep.versions,
        metrics={"questions": questions, "training_rows_alike": alike},
        created=utc_now(),
    )
