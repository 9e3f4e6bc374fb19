"""Reading recipes: by name, extending, overriding, and names that must exist."""

from pathlib import Path

import pytest
from tiny import write_jobs

from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names
from thinktune.schema.errors import SpecInvalid

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
        (["model.name=x"], "'model' is a single value and has no keys"),
        (["hardware=h100x9"], "hardware 'h100x9' is not in the catalog; did you mean 'h100x8'"),
        (["model=r1-distil-qwen-32b"], "did you mean 'r1-distill-qwen-32b'"),
        (["data.dataset=medical"], "data.dataset 'medical' is not in the catalog"),
        (
            ["train.targets=[q_poj]"],
            "train.targets: 'q_poj' is no layer of HuggingFaceTB/SmolLM2-135M-Instruct that takes"
            " an adapter; did you mean 'q_proj'",
        ),
        (["train.targets=[]"], "names no layer of HuggingFaceTB/SmolLM2-135M-Instruct that"),
        (["name=other"], "'name' cannot be overridden"),
        (["train.keep_checkpoints=1"], "'train.keep_checkpoints' is 1; it should be greater than"),
        (
            ["train.select=best"],
            "'select: best' goes by the validation loss, which is measured at the end alone; set"
            " evaluate_every_steps",
        ),
        (
            ["train.early_stopping_patience=3"],
            "'early_stopping_patience' goes by the validation loss, which is measured at the end",
        ),
        (
            [
                *("train.select=best", "train.evaluate_every_steps=5"),
                "data.split.validation_rows=0",
            ],
            "no rows are held out for it; set data.split.validation_rows",
        ),
    ],
)
def test_a_bad_override_is_explained(overrides: list[str], said: str) -> None:
    assert said in fault("demo", *overrides)


def test_an_unknown_recipe_names_its_neighbors() -> None:
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
    with pytest.raises(SpecInvalid, match="remove one of these"):
        load_recipe("a", catalog=load_catalog(jobs), folder=jobs)


def test_a_recipe_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("extends: demo\nname: other\n")
    assert "the file gives the name" in fault(str(path))


def test_a_recipe_is_a_mapping_of_text(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("- 1\n")
    assert "not a mapping" in fault(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in fault(str(path))


@pytest.mark.parametrize(
    ("override", "taken"),
    [
        ("data.answer={answer}", "{answer}"),
        ("data.answer='{answer}'", "{answer}"),
        ('data.answer="{answer}\\n"', "{answer}\n"),
        ("data.answer={answer}\\n", "{answer}\\n"),
        ('data.answer=it\'s "so"', 'it\'s "so"'),
        ("data.answer='a' or 'b'", "'a' or 'b'"),
        ("data.answer=null", "null"),
        ("data.answer=", ""),
        ("data.prompt={question} hi", "{question} hi"),
        ("data.final_answer=Final Answer:", "Final Answer:"),
        ("data.final_answer=null", None),
        ("data.final_answer='null'", "null"),
        ("data.system=# [x", "# [x"),
        ("data.columns.question=2024", "2024"),
    ],
)
def test_a_text_needs_no_quotes(override: str, taken: str | None) -> None:
    recipe = load_recipe("demo", [override], catalog=CATALOG)
    value: object = recipe
    for part in override.partition("=")[0].split("."):
        value = getattr(value, part)
    assert value == taken


def test_a_path_that_looks_like_a_number() -> None:
    recipe = load_recipe("demo", ["data.dataset=file", "data.path=2024"], catalog=CATALOG)
    assert recipe.data.path == "2024"


def test_what_is_no_text_is_yaml() -> None:
    overrides = ["train.max_steps=null", "train.targets=[q_proj]", "data.require_reasoning=false"]
    recipe = load_recipe("demo", overrides, catalog=CATALOG)
    assert recipe.train.max_steps is None
    assert recipe.train.targets == ("q_proj",)
    assert recipe.data.require_reasoning is False


def test_an_answer_longer_than_the_model_can_hold() -> None:
    said = fault("demo", "evaluate.max_new_tokens=8192")
    assert "evaluate.max_new_tokens is 8,192, and smollm2-135m supports 8,192 tokens" in said
    assert "--set evaluate.max_new_tokens=4096" in said
    load_recipe("demo", ["evaluate.max_new_tokens=8191"], catalog=CATALOG)


def test_a_file_may_have_the_name_of_what_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("extends: demo\ntrain: {rank: 4}\n")
    recipe = load_recipe(str(path), catalog=CATALOG)
    assert (recipe.name, recipe.train.rank) == ("demo", 4)


def test_a_parent_is_looked_up_beside_its_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, here = tmp_path / "own", tmp_path / "here"
    for folder, rank in ((own, 4), (here, 8)):
        folder.mkdir()
        (folder / "base.yaml").write_text(f"extends: demo\ntrain: {{rank: {rank}}}\n")
    (own / "child.yaml").write_text("extends: base.yaml\n")
    monkeypatch.chdir(here)
    assert load_recipe("../own/child.yaml", catalog=CATALOG).train.rank == 4
    (own / "base.yaml").unlink()
    assert load_recipe("../own/child.yaml", catalog=CATALOG).train.rank == 8


def test_a_circle_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    said = fault(str(tmp_path / "a.yaml"))
    assert f"leads back: {tmp_path}/a.yaml → {tmp_path}/b.yaml → {tmp_path}/a.yaml" in said


@pytest.mark.parametrize("parent", ["[a]", "3", '"a\\0.yaml"', f"{'a' * 300}.yaml"])
def test_a_parent_that_cannot_be(tmp_path: Path, parent: str) -> None:
    (tmp_path / "r.yaml").write_text(f"extends: {parent}\n")
    assert "; " in fault(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize("stem", ["My Recipe", "-x", "a_b", "x" * 49])
def test_a_file_whose_name_is_no_name(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text("extends: demo\n")
    said = fault(str(path))
    assert said.startswith(f"{path}: a recipe is named after its file, and {stem!r} is not a valid")
    assert "rename it: at most 48 lower-case letters" in said
    assert "^[a-z0-9]" not in said


def test_a_recipe_that_holds_itself(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("extends: demo\ndata: &x\n  columns: *x\n")
    assert f"{path}:3: not YAML" in fault(str(path))
