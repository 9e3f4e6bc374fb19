"""The catalog's datasets in their released files, odd labels and nulls too, by their recipes."""

from collections import Counter
from pathlib import Path

import pytest
from tiny_tokenizer import tiny_entry

from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.readers.reading import read_records
from thinktune.tasks.prep.readers.records import Record
from thinktune.tasks.prep.recognition import Layout, recognize
from thinktune.tasks.prep.rows import Example, examples_of, question_key
from thinktune.tasks.prep.selection import Filters, balanced_value
from thinktune.text.conversation import Unusable
from thinktune.text.templates import Renderer

FIXTURES = Path(__file__).parents[3] / "fixtures" / "datasets"
CATALOG = load_catalog()


def records_of(name: str, suffix: str = "") -> list[Record]:
    """All rows of a fixture, as the files that the catalog's patterns name."""
    entry = CATALOG.datasets[name + suffix]
    files = sorted(file for pattern in entry.files for file in (FIXTURES / name).rglob(pattern))
    if not files:  # patterns below data/
        files = sorted(f for pattern in entry.files for f in (FIXTURES / name).glob(pattern))
    assert files, name
    return [record for file in files for record in read_records(file)]


def taken(records: list[Record], data: DataSpec) -> tuple[Layout, list[Example], Counter[str]]:
    """Examples, and reasons of rows that are dropped, under a recipe's data section."""
    entry = CATALOG.datasets[data.dataset]
    rows = [record.row for record in records if record.row is not None]
    layout = recognize(rows, data, entry, data.dataset)
    filters = Filters(data.filters)
    found: list[Example] = []
    dropped: Counter[str] = Counter()
    for record in records:
        try:
            if record.broken is not None:
                raise Unusable(record.broken)
            assert record.row is not None
            reason = filters.reason(record.row)
            if reason is not None:
                raise Unusable(reason)
            examples = examples_of(record.row, layout, data).examples
        except Unusable as unusable:
            dropped[unusable.reason.text] += 1
        else:
            found += examples
    return layout, found, dropped


def test_medical_o1() -> None:
    data = load_recipe("medical-cot-llama-8b", catalog=CATALOG).data
    layout, examples, dropped = taken(records_of("medical-o1-en"), data)
    assert layout.used == {"question": "Question", "reasoning": "Complex_CoT", "answer": "Response"}
    assert layout.unused == ()
    assert len(examples) + dropped.total() == 16
    assert dropped == {"nothing behind the think part": 1, "empty question": 1}
    reasoned = [example for example in examples if example.reasoning]
    assert 0 < len(reasoned) < len(examples)
    assert not any("<think>" in (example.reasoning or "") for example in examples)


def test_medical_o1_with_summaries() -> None:
    data = load_recipe("final-answer-qwen-1.5b", catalog=CATALOG).data
    layout, examples, dropped = taken(records_of("medical-o1-summary"), data)
    assert layout.used["summary"] == "Summary"
    assert len(examples) + dropped.total() == 15
    assert any(example.summary is None for example in examples)  # which the template then drops


def test_medical_r1_distill() -> None:
    data = DataSpec(dataset="medical-r1-distill")
    layout, examples, dropped = taken(records_of("medical-r1-distill"), data)
    assert layout.used["reasoning"] == "reasoning (reasoning_content)"
    assert dropped["nothing behind the think part"] >= 1
    assert all("<think>" not in example.answer for example in examples)


def test_magpie_as_the_math_recipe_takes_it() -> None:
    data = load_recipe("math-qwen-1.5b", catalog=CATALOG).data
    records = records_of("magpie-r1-llama-70b")
    layout, _, dropped = taken(records, data)
    assert layout.used == {"question": "instruction", "answer": "response"}
    assert {"conversations", "conversation_id"} <= set(layout.unused)
    assert dropped["filter on task_category"] and dropped["filter on input_quality"]
    assert dropped["unfinished think part"] and dropped["more than one think part"]
    filters = Filters(data.filters)
    by_level: Counter[int] = Counter()
    seen = set()
    for record in records:
        assert record.row is not None
        try:
            (example,) = examples_of(record.row, layout, data).examples
        except Unusable:
            continue
        wanted = filters.reason(record.row) is None and example.reasoning is not None
        if wanted and question_key(example) not in seen:
            seen.add(question_key(example))
            by_level[balanced_value(record.row, data.balance)] += 1
    assert [by_level[n] for n in range(4)] == [5, 3, 2, 2]


@pytest.mark.parametrize("suffix", ["", "-test"])
def test_medqa_shows_its_options(suffix: str) -> None:
    data = DataSpec(dataset=f"medqa-usmle{suffix}")
    layout, examples, dropped = taken(records_of("medqa-usmle", suffix), data)
    assert layout.used["options"] == "options"
    assert not dropped
    assert all(example.options and "A. " in example.options for example in examples)
    assert all(len(example.answer) == 1 for example in examples)
    prompt = Renderer(tiny_entry(), data).render(examples[0]).prompt_text()
    assert f"{examples[0].question}\n\nA. " in prompt
