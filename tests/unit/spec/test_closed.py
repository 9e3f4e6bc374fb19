"""Errors of what is written down: file, field, fault, remedy, near misses."""

import pytest

from thinktune.spec.closed import parse_yaml
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.recipe import Filter, Recipe, TrainSpec

WHOLE = {
    "name": "x",
    "description": "d",
    "model": "m",
    "hardware": "h",
    "data": {"dataset": "stock-sums"},
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


def test_an_unknown_key_names_its_neighbour() -> None:
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
