"""The command line: what it refuses and how, what it prints for programs, what it loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import thinktune

from thinktune.cli.options import store_url
from thinktune.recipes.compose import recipe_names
from thinktune.schema.keys import stage_prefix
from thinktune.store import commit, new_attempt, open_store


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], "unknown command 'rn'; did you mean 'run'"),
        (["plan"], "no recipe is given; choose one that `thinktune recipes` lists"),
        (["plan", "qwen32b"], "did you mean 'qwen-32b'"),
        (["plan", "qwen-32b", "--hardware", "h100x9"], "did you mean 'h100x8'"),
        (
            ["plan", "qwen-32b", "--set", "train.rnk=3"],
            "unknown key 'train.rnk'; did you mean 'rank'",
        ),
        (["plan", "demo", "--output", "yaml"], "'yaml' is not one of 'text', 'json'"),
        (["run", "qwen-32b", "--local"], "audit.jsonl"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(arguments: list[str], said: str) -> None:
    ended = thinktune(*arguments)
    assert said in ended.err
    assert ended.code == (65 if "audit" in said else 64)
    assert "Traceback" not in ended.err


def test_gpus_that_are_not_there(tmp_path: Path) -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    ended = thinktune("run", "medical-cot-small", "--local", "--store", f"file://{tmp_path}")
    assert ended.code == 64
    assert "this machine has no NVIDIA GPU" in ended.err


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_plans_as_json(name: str) -> None:
    ended = thinktune("plan", name, "--output", "json")
    assert ended.code == 0, ended.err
    planned = json.loads(ended.out)
    assert planned["fits"] is True
    assert planned["alternatives"] == []
    causes = planned["gpu_memory_bytes"]
    assert sum(causes.values()) == planned["gpu_total_bytes"] <= planned["gpu_capacity_bytes"]


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    ended = thinktune("plan", "qwen-32b", "--hardware", "t4x1")
    assert ended.code == 64
    assert "needs at least" in ended.out
    assert "What would fit:" in ended.out
    assert "--set hardware=a100-40x1" in ended.out
    refused = thinktune("plan", "qwen-32b", "--hardware", "t4x1", "--output", "json")
    assert refused.code == 64
    assert len(json.loads(refused.out)["alternatives"]) >= 1


def test_the_list_of_recipes() -> None:
    listed = thinktune("recipes", "--output", "json")
    assert [row["name"] for row in json.loads(listed.out)] == recipe_names()
    assert "qwen-32b" in thinktune("recipes").out


def test_it_loads_neither_torch_nor_boto3() -> None:
    script = (
        "import sys; import thinktune.cli.main; import thinktune.launch.local;"
        "print([m for m in ('torch', 'transformers', 'boto3', 'pyarrow', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_names_the_commands() -> None:
    ended = thinktune("--help")
    assert ended.code == 0
    for command in ("plan", "run", "recipes"):
        assert command in ended.out


@pytest.mark.parametrize("name", ["", " ", "x?y", "a/train", "../x", "a\nb", "a\n", "X"])
def test_a_name_that_no_run_can_have(name: str, tmp_path: Path) -> None:
    ended = thinktune("run", "demo", "--local", "--run", name, "--store", str(tmp_path / "s"))
    assert ended.code == 64
    assert ended.err == (
        f"error: --run: {name!r} is not a valid name for a run; use at most 48 lower-case letters, "
        "digits, '-' and '.', with a letter or digit at each end\n"
    )
    assert ended.out == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--store", "ftp://x"], "write file:///path or s3://bucket/prefix"),
        (["--set", "nodes=2"], "for 2 nodes, and `thinktune run` uses one machine"),
        (["--set", "data.split.test_rows=0"], "--set data.split.test_rows=100, or stop"),
        (["--set", "data.filters=[{column: id, matches: '('}]"], "not a valid Python regular"),
        (["--set", "train.lr=.nan"], "it should be a finite number"),
        (["--set", "train.alpha=.inf"], "it should be a finite number"),
        (["--set", "train.seed=-1"], "'train.seed' is -1"),
    ],
)
def test_what_a_run_refuses_before_it_says_where_it_is(
    settings: list[str], said: str, tmp_path: Path
) -> None:
    ended = thinktune("run", "demo", "--local", "--store", str(tmp_path / "s"), *settings)
    assert ended.code == 64, ended.err
    assert said in ended.err
    assert ended.out == ""
    assert not (tmp_path / "s").exists()


def test_where_a_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "c#d 100%"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("THINKTUNE_STORE", raising=False)
    places = {
        None: here / "thinktune-store",
        "./rel": here / "rel",
        "rel?": here / "rel?",
        f"{tmp_path}/abs": tmp_path / "abs",
    }
    for given, folder in places.items():
        assert open_store(store_url(given)).local_path("k") == folder / "k"
    monkeypatch.setenv("THINKTUNE_STORE", "other")
    assert open_store(store_url(None)).local_path("k") == here / "other" / "k"
    assert store_url("s3://bucket/x") == "s3://bucket/x"
    assert store_url("file:///x%20y") == "file:///x%20y"


def test_assumptions_hang_on_a_narrow_terminal() -> None:
    ended = thinktune("plan", "qwen-32b", more={"COLUMNS": "80"})
    lines = ended.out.split("Assumptions\n")[1].split("The whole run\n")[0].splitlines()
    planned = json.loads(thinktune("plan", "qwen-32b", "--output", "json").out)
    assert all(len(line) <= 80 and line.startswith("  ") for line in lines)
    starts = [line for line in lines if not line.startswith("    ")]
    assert len(lines) > len(starts) == len(planned["assumptions"])
    assert " ".join(" ".join(lines).split()) == " ".join(planned["assumptions"])


def test_a_recipe_on_all_hardware_is_what_its_plans_say() -> None:
    rows = json.loads(thinktune("plan", "llama-70b", "--all-hardware", "--output", "json").out)
    assert [row["tokens_per_s"] for row in rows] == sorted(
        (row["tokens_per_s"] for row in rows), reverse=True
    )
    by_name = {row["hardware"]: row for row in rows}
    assert "t4x1" not in by_name
    assert by_name["h100x4"]["measured"] and not by_name["a100-40x4"]["measured"]
    plan = thinktune("plan", "llama-70b", "--hardware", "a100-40x2", "--output", "json")
    assert by_name["a100-40x2"]["hours"] == json.loads(plan.out)["hours"]
    table = thinktune("plan", "llama-70b", "--all-hardware").out
    assert "not measured" in table and "h200x8" in table


def test_the_audit_takes_less_than_two_hours_on_its_node() -> None:
    """2,100 examples, 3 epochs, 4×A100-40GB: it took the reference 18 hours."""
    rows = json.loads(thinktune("plan", "--all-hardware", "--output", "json").out)
    audit = next(r for r in rows if (r["recipe"], r["hardware"]) == ("qwen-32b", "a100-40x4"))
    assert 0 < audit["hours"] < 2
    assert not audit["measured"]


def test_what_a_run_took_is_shown_beside_its_plan(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("x")
    figures = {"planned_tokens_per_s": 110.0, "tokens_per_s": 100.0, "ranks": 2, "device": "CPU"}
    figures |= {"planned_gpu_memory_bytes": 2**30, "peak_gpu_memory_bytes": None}
    commit(
        open_store(store),
        stage_prefix("r", "train"),
        tmp_path / "out",
        kind="train",
        run="r",
        attempt=new_attempt(),
        inputs={},
        task_sha256=None,
        metrics=figures,
        created="2026-01-01T00:00:00+00:00",
    )
    shown = thinktune("plan", "--actual", "r", "--store", store)
    assert shown.code == 0
    assert "+10.0%" in shown.out and "1.00 GiB" in shown.out and "2 × CPU" in shown.out
    found = json.loads(thinktune("plan", "--actual", "r", "--store", store, "--output", "json").out)
    assert found[1]["what"] == "tokens_per_s"
    missing = thinktune("plan", "--actual", "other", "--store", store)
    assert (missing.code, "has no finished training" in missing.err) == (66, True)


def test_a_recipe_whose_file_is_missing_keeps_no_other_from_being_rendered(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("store: s3://bucket/p\n")
    ended = thinktune(
        *("render", "qwen-32b", "demo", "llama-70b", "--values-only"),
        *("--cluster", str(cluster), "-o", str(tmp_path / "rendered")),
        cwd=tmp_path,
    )
    assert ended.code == 65
    assert "audit.jsonl: recipe qwen-32b learns from this file" in ended.err
    made = sorted(path.name[:5] for path in (tmp_path / "rendered").iterdir())
    assert made == ["demo-", "llama"]
