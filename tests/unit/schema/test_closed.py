"""Errors of what is written down: file, field, fault, remedy, near misses."""

import pytest

from thinktune.schema.closed import Closed, added, parse_yaml
from thinktune.schema.data import Filter
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.recipe import Recipe, TrainSpec

WHOLE = {
    "name": "x",
    "description": "d",
    "model": "m",
    "hardware": "h",
    "data": {"dataset": "inventory-sums"},
    "train": {"batch_size": 8},
}


def fault(data: object, kind: type = Recipe) -> str:
    with pytest.raises(SpecInvalid) as caught:
        kind.parse(data, "jobs/recipes/x.yaml")
    assert caught.value.exit_code == 64
    text = str(caught.value)
    assert "\n" not in text
    return text


def changed(section: str, **values: object) -> dict[str, object]:
    return {**WHOLE, section: {**WHOLE[section], **values}}  # type: ignore[dict-item]


def test_a_whole_recipe_is_read() -> None:
    recipe = Recipe.parse(WHOLE, "x.yaml")
    assert recipe.train.rank == 16
    assert Recipe.parse(recipe.model_dump(mode="json"), "x.yaml") == recipe
    assert recipe.digest() == Recipe.parse(WHOLE, "elsewhere.yaml").digest()


def test_an_unknown_key_names_its_neighbor() -> None:
    text = fault(changed("train", rnak=32))
    assert text.startswith("jobs/recipes/x.yaml: unknown key 'train.rnak'; did you mean 'rank'")


def test_a_wrong_type_is_not_coerced() -> None:
    text = fault(changed("train", rank="32"))
    assert "'train.rank' is '32'; it should be a valid integer" in text


def test_a_value_out_of_range_says_the_range() -> None:
    assert "'train.rank' is 0; it should be greater than or equal to 1" in fault(
        changed("train", rank=0)
    )


def test_an_unknown_choice_says_the_choices() -> None:
    text = fault(changed("train", loss_on="answr"))
    assert "did you mean 'answer'" in text
    assert "completion" in text


def test_a_missing_key_is_described() -> None:
    text = fault(changed("data") | {"train": {}})
    assert "'train.batch_size' is missing; add it (Examples per optimizer step" in text


def test_several_faults_are_one_paragraph() -> None:
    text = fault(changed("train", rank=0, lr=2.0, alhpa=1))
    assert text.count("Also:") == 2


def test_a_filter_has_one_test() -> None:
    assert "give exactly one of" in fault({"column": "c"}, Filter)
    assert "give exactly one of" in fault(
        {"column": "c", "matches": "x", "not_empty": True}, Filter
    )


def test_a_file_and_its_path_belong_together() -> None:
    assert "'path' and 'dataset: file' belong together" in fault(changed("data", dataset="file"))


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainSpec(batch_size=1).rank = 3  # type: ignore[misc]


def test_a_learning_rate_is_a_number_without_a_dot() -> None:
    assert parse_yaml("lr: 2e-4", "x") == {"lr": 2e-4}
    assert parse_yaml("a: 1_000\nb: 1.5\nc: 12\nd: -3e2", "x")["d"] == -300.0
    assert parse_yaml("revision: 2026-01-01", "x") == {"revision": "2026-01-01"}


def test_broken_yaml_names_the_line() -> None:
    with pytest.raises(SpecInvalid, match=r"x\.yaml:2: not YAML"):
        parse_yaml("a: 1\nb: [", "x.yaml")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: {c: 1,\n  c: 2}\n", 3, "'c' is written twice"),
        ("a: 1\n'a': 2\n", 2, "'a' is written twice"),
        ("a: &x\n  b: [*x]\n", 2, "'\\*x' refers to a value that contains it"),
        ("- &x [*x]\n", 1, "'\\*x' refers to"),
    ],
)
def test_yaml_that_no_json_could_say(text: str, line: int, said: str) -> None:
    with pytest.raises(SpecInvalid, match=rf"x\.yaml:{line}: not YAML \({said}"):
        parse_yaml(text, "x.yaml")


def test_anchors_and_merges_are_taken() -> None:
    text = "a: &a {k: 1, l: 2}\nb: {c: &b {<<: *a, k: 3}}\nd: {<<: *b, l: 4}\ne: [*a, *a]\n"
    read = parse_yaml(text, "x")
    assert read["b"]["c"] == {"k": 3, "l": 2}
    assert read["d"] == {"k": 3, "l": 4}
    assert read["e"] == [{"k": 1, "l": 2}] * 2


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 5000])
def test_yaml_beyond_bounds(text: str) -> None:
    with pytest.raises(SpecInvalid, match="not YAML"):
        parse_yaml(text, "x")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_is_what_every_generator_takes(seed: int) -> None:
    assert "'train.seed' is" in fault(changed("train", seed=seed))
    assert "'data.split.seed' is" in fault(changed("data", split={"seed": seed}))
    assert "'evaluate.seed' is" in fault({**WHOLE, "evaluate": {"seed": seed}})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_figures_are_finite(value: float) -> None:
    assert "'train.alpha' is" in fault(changed("train", alpha=value))
    assert "it should be a finite number" in fault(changed("train", max_grad_norm=value))
    rows = {"column": "c", "any_of": [value]}
    assert "any_of" in fault(rows, Filter)


def test_a_balance_has_values() -> None:
    assert "'data.balance.values' is" in fault(
        changed("data", balance={"column": "c", "values": []})
    )


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "*x"])
def test_a_filter_matches_a_regular_expression(pattern: str) -> None:
    text = fault(changed("data", filters=[{"column": "c", "matches": pattern}]))
    assert "'data.filters.0.matches': not a valid Python regular expression (" in text
    assert "; correct it" in text


def test_half_a_character() -> None:
    assert "not Unicode" in fault({**WHOLE, "description": "\ud83d"})


def test_a_name_of_an_earlier_version_leads_to_the_new_one() -> None:
    assert near_misses("licence", ["repo", "license"]).startswith("did you mean 'license'?")
    assert near_misses("stock-sums", ["inventory-sums", "magpie"]).startswith(
        "did you mean 'inventory-sums'?"
    )
    # Where the new name would be wrong as well, it is not offered.
    assert "license" not in near_misses("licence", ["repo", "files"])


def test_a_field_that_came_later_keeps_the_digests_from_before() -> None:
    class Before(Closed):
        name: str

    class Later(Closed):
        name: str
        start: str | None = added(None)

    assert Later(name="a").digest() == Before(name="a").digest()
    assert Later(name="a", start="b").digest() != Before(name="a").digest()
    text = Later(name="a", start="b").model_dump_json()
    assert Later.model_validate_json(text).start == "b"
    plain = TrainSpec(batch_size=1).model_dump()
    assert not {"select", "early_stopping_patience", "init_from"} & plain.keys()
    assert TrainSpec.parse(plain, "test") == TrainSpec(batch_size=1)
