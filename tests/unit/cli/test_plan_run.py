"""`thinktune plan` of a whole run: the table, prices from a cluster file, 80 columns, --actual."""

import io
import json
from pathlib import Path

import pytest
from command import thinktune
from rich.console import Console

from thinktune.cli.options import read_optional_cluster
from thinktune.cli.plan import show
from thinktune.cli.plan_actual import show_actual
from thinktune.cli.plan_run import show_run
from thinktune.launch.runs import plan_recipe, plan_whole_run
from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import MetricValue
from thinktune.schema.stages import Stage
from thinktune.store import commit, new_attempt, open_store

CATALOG = load_catalog()
PRICES = {
    "currency": "EUR",
    "node_hour": dict.fromkeys(CATALOG.hardware, 1234.5),
    "cpu_node_hour": 0.2,
}
CLUSTER = Cluster.parse({"store": "s3://bucket", "prices": PRICES}, "cluster.yaml")


def shown(name: str, cluster: Cluster | None, *overrides: str) -> str:
    recipe = load_recipe(name, overrides, catalog=CATALOG)
    planned = plan_recipe(recipe, CATALOG)
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False)
    show(planned, recipe, console)
    show_run(plan_whole_run(recipe, CATALOG, planned, cluster), console)
    return out.getvalue()


@pytest.mark.parametrize("cluster", [None, CLUSTER], ids=["without prices", "with prices"])
@pytest.mark.parametrize("name", recipe_names())
def test_80_columns_hold_every_recipe(name: str, cluster: Cluster | None) -> None:
    lines = shown(name, cluster, "nodes=2").splitlines()
    table = lines[lines.index("The whole run") :]
    assert max(map(len, table)) <= 80
    for stage in ("prep", "train", "evaluate", "sum"):
        assert any(line.startswith(f"  {stage} ") for line in table)
    assert any("EUR" in line for line in table) == (cluster is not None)


def test_what_does_not_fit_is_named_with_its_remedy() -> None:
    text = " ".join(shown("qwen-32b", None, "evaluate.precisions=[16bit]").split())
    assert "evaluate: the answers need at least" in text
    assert "leave 16bit out of evaluate.precisions" in text


def test_prices_of_the_cluster_file(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "store: s3://bucket\n"
        "prices: {currency: EUR, gpu_hour: {NVIDIA-A100-SXM4-40GB: 1.5}, cpu_node_hour: 0.2}\n"
    )
    found = thinktune("plan", "final-answer-qwen-1.5b", "--output", "json", cwd=tmp_path)
    assert found.code == 0
    run = json.loads(found.out)["run"]
    prep, train, evaluate = run["stages"]
    assert run["currency"] == "EUR"
    assert prep["money"] == pytest.approx(0.2 * prep["hours"])
    assert evaluate["money"] == pytest.approx(1.5 * evaluate["hours"])
    assert run["money"] == pytest.approx(prep["money"] + train["money"] + evaluate["money"])
    assert json.loads(found.out)["fits"] is True  # the training's part is where it was


def test_the_plan_does_without_a_cluster_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THINKTUNE_CLUSTER", raising=False)
    assert read_optional_cluster(None) is None
    for named in (Path("none.yaml"), None):
        if named is None:
            monkeypatch.setenv("THINKTUNE_CLUSTER", "none.yaml")
        with pytest.raises(SpecInvalid, match=r"none\.yaml: the cluster file cannot be read"):
            read_optional_cluster(named)
    assert "the cluster file gives no prices" in " ".join(shown("demo", None).split())


def test_an_evaluation_that_does_not_fit_ends_with_64(tmp_path: Path) -> None:
    found = thinktune("plan", "qwen-32b", "--set", "evaluate.precisions=[16bit]", cwd=tmp_path)
    assert found.code == 64
    assert "fits: 37.9 of 40.0 GiB" in found.out  # the training does


def test_all_stages_of_a_finished_run_beside_their_plan(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("x")
    finished: tuple[tuple[Stage, dict[str, MetricValue]], ...] = (
        ("prep", {"rows": 1200}),
        ("train", {"tokens_per_s": 100.0, "ranks": 1, "device": "CPU", "planned_s": 1e12}),
        ("evaluate", {"questions": 120}),
    )
    for kind, figures in finished:
        commit(
            open_store(store),
            stage_prefix("r", kind),
            tmp_path / "out",
            kind=kind,
            run="r",
            attempt=new_attempt(),
            inputs={},
            task_sha256=None,
            metrics=figures,
            created="2099-01-01T00:00:00+00:00",
        )
    arguments = ("--actual", "r", "--store", store)
    found = thinktune("plan", "demo", *arguments, "--output", "json", cwd=tmp_path)
    pairs = {pair["what"]: pair for pair in json.loads(found.out)}
    assert pairs["questions"]["planned"] == pairs["questions"]["actual"] == 120
    assert pairs["evaluate_s"]["planned"] > 0 and pairs["evaluate_s"]["actual"] > 0
    out = io.StringIO()
    show_actual("r", store, None, Console(file=out, width=80), as_json=False)
    assert "evaluate_s" in out.getvalue() and "+" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
