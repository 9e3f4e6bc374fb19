"""The references: each names a recipe that measures what it has figures of."""

import importlib.util
from pathlib import Path

import pytest

from thinktune.recipes.compose import load_catalog, load_recipe
from thinktune.recipes.references import beside, load_reference, reference_names
from thinktune.schema.errors import SpecInvalid
from thinktune.tasks.evaluate.metrics.registry import Registry

NAMES = ["final-answer", "financial-audit", "math", "medical-cot"]
ROOT = Path(__file__).parents[3]


def test_these_ship() -> None:
    assert reference_names() == NAMES
    with pytest.raises(SpecInvalid, match="did you mean 'math'"):
        load_reference("maths")


@pytest.mark.parametrize("name", NAMES)
def test_its_recipe_measures_what_it_has_figures_of(name: str) -> None:
    reference, catalog = load_reference(name), load_catalog()
    recipe = load_recipe(reference.recipe, (), catalog=catalog)
    assert catalog.models[recipe.model].repo == reference.model
    spec = recipe.evaluate
    known = {metric.name for metric in Registry.discover()}
    known |= {f"{benchmark.replace('-', '_')}_accuracy" for benchmark in spec.benchmarks}
    assert {figure.metric for figure in reference.figures} <= known
    wanted = {figure.metric.partition("_")[0] for figure in reference.figures}
    assert ("judge" not in wanted) or spec.judge is not None
    assert ("label" not in wanted) or spec.labels is not None
    assert ("perplexity" not in wanted) or spec.perplexity


def test_the_published_figures_stand_beside_the_runs() -> None:
    reference = load_reference("final-answer")
    metrics = {"questions": 300, "base_format_rate": 0.1, "tuned_format_rate": 0.9}
    found = beside("final-answer", reference, "r", metrics | {"format_rate_p": 0.01}, None)
    first, judged, *_ = found.figures
    assert (first.reference, first.run, first.p) == ((0.043, 0.997), (0.1, 0.9), 0.01)
    assert (judged.reference, judged.run, judged.p) == ((0.181, 0.132), (None, None), None)
    assert "0.052" in (judged.note or "")
    assert found.differences[0] == "The run asked 300 questions, the reference 326."
    same = beside("final-answer", reference, "r", metrics | {"questions": 326}, None)
    assert same.differences == reference.differences


def test_what_make_reproduce_calls(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "tools" / "reproduce.py")
    assert spec is not None and spec.loader is not None
    reproduce = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reproduce)
    here = reproduce.commands("math", "r", None, None, ["train.max_steps=5"])
    assert [words[3:] for words in here] == [
        ["run", "math-qwen-1.5b", "--run", "r", "--set", "train.max_steps=5"],
        ["compare", "r", "--reference", "math"],
    ]
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("store: s3://bucket/x\n")
    there = reproduce.commands("financial-audit", "r", str(cluster), None, [])
    assert there[0][3:] == ["submit", "qwen-32b-judged", "--run", "r", "--cluster", str(cluster)]
    assert there[1][3:][-2:] == ["--store", "s3://bucket/x"]
