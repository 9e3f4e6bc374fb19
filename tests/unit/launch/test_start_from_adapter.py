"""A recipe that starts from the adapter of another run: what fits, and which run it makes."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import thinktune
from launching import CATALOG, CREATED
from s3_server import BUCKET, S3Server

from thinktune.launch.runs import Run, adapter_of, make_run
from thinktune.recipes.compose import load_recipe
from thinktune.schema.errors import InputMissing, SpecInvalid, ThinktuneError
from thinktune.schema.lora_targets import target_names
from thinktune.schema.stages import TrainTask
from thinktune.store import Store, commit, new_attempt, open_store

MODEL = CATALOG.models["smollm2-135m"]
assert MODEL.packaged is not None
DEMO = load_recipe("demo", (), catalog=CATALOG)
CONFIG = {
    "base_model_name_or_path": MODEL.repo,
    "r": 16,
    "lora_alpha": 32,
    "use_rslora": False,
    "target_modules": list(reversed(target_names(MODEL, DEMO.train))),
}
"""As PEFT writes it; it keeps no order of the targets."""


def commit_adapter(
    store: Store,
    folder: Path,
    run: str = "first",
    weights: bytes = b"weights",
    revision: str = MODEL.packaged.revision,
    **config: Any,
) -> None:
    """What a training of the demo leaves, as far as it is looked at here."""
    files = folder / new_attempt()
    files.mkdir()
    (files / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    (files / "adapter_model.safetensors").write_bytes(weights)
    commit(
        store, f"runs/{run}/train", files, kind="train", run=run, attempt=new_attempt(), inputs={},
        task_sha256=None, revisions={"model": revision}, created=CREATED,
    )  # fmt: skip


def second(store: Store, *overrides: str, name: str | None = None) -> Run:
    settings = ("train.init_from=first", *overrides)
    recipe = load_recipe("demo", settings, catalog=CATALOG)
    return make_run(recipe, CATALOG, store.url, name, adapter=adapter_of(recipe, CATALOG, store))


def test_the_checksum_is_in_the_task_and_in_the_id(store: Store, tmp_path: Path) -> None:
    commit_adapter(store, tmp_path)
    run = second(store)
    task = run.tasks["train"]
    assert isinstance(task, TrainTask)
    assert task.init_from is not None
    assert (task.init_from.run, len(task.init_from.sha256)) == ("first", 64)
    assert second(store).id == run.id
    store.delete_prefix("runs/first")
    commit_adapter(store, tmp_path, weights=b"other weights")
    other = second(store)
    assert other.id != run.id
    assert other.tasks["train"].result_digest() != task.result_digest()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"r": 8, "lora_alpha": 16},
            "the adapter of run first has rank 8 and alpha 16, this recipe rank 16 and alpha 32;"
            " add --set 'train.rank=8' --set 'train.alpha=16', or name another run",
        ),
        (
            {"use_rslora": True},
            "has rslora true, this recipe rslora false; add --set 'train.rslora",
        ),
        (
            {"target_modules": ["v_proj", "q_proj"]},
            "has targets [q_proj, v_proj], this recipe targets [down_proj, gate_proj,",
        ),
        (
            {"base_model_name_or_path": "other/model"},
            f"is for other/model, this recipe trains {MODEL.repo}; name a run of the same model",
        ),
        ({"revision": "0" * 40}, f"is for revision {'0' * 40} of {MODEL.repo}, this recipe trains"),
    ],
)
def test_what_differs_is_named(
    store: Store, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    commit_adapter(store, tmp_path, **config)
    with pytest.raises(SpecInvalid) as raised:
        second(store)
    assert str(raised.value).startswith("train.init_from: the adapter of run first ")
    assert said in str(raised.value)
    assert raised.value.exit_code == 64


def test_the_remedy_helps(store: Store, tmp_path: Path) -> None:
    commit_adapter(store, tmp_path, r=8, target_modules=["v_proj", "q_proj"])
    assert second(store, "train.rank=8", "train.targets=[q_proj, v_proj]").adapter is not None


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="names run first, whose training has committed nothing"):
        second(store)
    commit_adapter(store, tmp_path)
    key = next(i.key for i in store.list("runs/first/train") if i.key.endswith("config.json"))
    path = store.local_path(key)
    assert path is not None
    path.unlink()
    with pytest.raises(ThinktuneError, match=r"its adapter_config\.json cannot be read") as raised:
        second(store)
    assert raised.value.exit_code == 66


def test_a_run_does_not_start_from_itself(store: Store, tmp_path: Path) -> None:
    commit_adapter(store, tmp_path)
    with pytest.raises(SpecInvalid, match="a run cannot start from its own adapter"):
        second(store, name="first")


def test_render_asks_the_store_of_the_cluster_file(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/{tmp_path.name}")
    commit_adapter(store, tmp_path)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(f"store: {store.url}\n")
    command = ("render", "demo", "--values-only", "--set", "train.init_from=first")
    where = ("--cluster", str(cluster), "-o", str(tmp_path / "out"))
    ended = thinktune(*command, *where, more=server.environment())
    assert ended.code == 0, ended.err
    (values,) = (tmp_path / "out").glob("*/train.values.yaml")
    adapter = second(store).adapter
    assert adapter is not None
    assert adapter.sha256 in values.read_text()
