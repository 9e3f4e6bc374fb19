"""Reading recipes: by name, extending, overriding, and names that must exist."""

from pathlib import Path

import pytest
from tiny import write_jobs

from thinktune.spec.compose import load_catalog, load_recipe, recipe_names
from thinktune.spec.errors import SpecInvalid

CATALOG = load_catalog()


def fault(name: str, *overrides: str) -> str:
    with pytest.raises(SpecInvalid) as caught:
        load_recipe(name, overrides, catalog=CATALOG)
    return str(caught.value)


def test_overrides_are_typed_and_checked() -> None:
    recipe = load_recipe(
        "demo",
        ["train.rank=32", "train.lr=5e-5", "data.filters=[{column: id, not_empty: true}]"],
        catalog=CATALOG,
    )
    assert (recipe.train.rank, recipe.train.lr) == (32, 5e-5)
    assert recipe.data.filters[0].column == "id"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.rank=many"], "'train.rank' is 'many'"),
        (["train.rnk=3"], "unknown key 'train.rnk'"),
        (["train.rank"], "not key=value; write --set train.rank=32"),
        (["model.name=x"], "'model' is a value and has no keys"),
        (["hardware=h100x9"], "hardware 'h100x9' is not in the catalog; did you mean 'h100x8'"),
        (["model=r1-distil-qwen-32b"], "did you mean 'r1-distill-qwen-32b'"),
        (["data.dataset=medical"], "data.dataset 'medical' is not in the catalog"),
        (["train.targets=[q_poj]"], "'q_poj' is no layer of smollm2-135m that takes an adapter"),
        (["name=other"], "'name' cannot be overridden"),
    ],
)
def test_a_bad_override_is_explained(overrides: list[str], said: str) -> None:
    assert said in fault("demo", *overrides)


def test_an_unknown_recipe_names_its_neighbours() -> None:
    assert fault("dmo").startswith("recipe 'dmo': not known; did you mean 'demo'")


def test_a_file_that_is_not_there() -> None:
    assert "cannot be read (No such file or directory)" in fault("nowhere/x.yaml")


def test_extending_merges_key_by_key(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs")
    child = jobs / "recipes" / "child.yaml"
    child.write_text("extends: tiny\ntrain: {rank: 4}\n")
    catalog = load_catalog(jobs)
    parent = load_recipe("tiny", catalog=catalog, folder=jobs)
    recipe = load_recipe("child", catalog=catalog, folder=jobs)
    assert recipe.name == "child"
    assert recipe.train == parent.train.model_copy(update={"rank": 4})
    assert recipe.data == parent.data
    assert recipe_names(jobs) == ["child", "tiny"]


def test_extending_in_a_circle(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs")
    (jobs / "recipes" / "a.yaml").write_text("extends: b")
    (jobs / "recipes" / "b.yaml").write_text("extends: a")
    with pytest.raises(SpecInvalid, match="no circle"):
        load_recipe("a", catalog=load_catalog(jobs), folder=jobs)


def test_a_recipe_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("extends: demo\nname: other\n")
    assert "the file's name is the recipe's" in fault(str(path))


def test_a_recipe_is_a_mapping_of_text(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("- 1\n")
    assert "not a mapping" in fault(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in fault(str(path))
