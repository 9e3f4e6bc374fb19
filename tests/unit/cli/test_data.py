"""`thinktune data`: what a newcomer is told of a file, and what of a run."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "<b>\x1b[31mred\x1b[0m</b> ```\n# title"


def thinktune(
    *arguments: str, code: int = 0, columns: int = 100
) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "thinktune", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns)},
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended


def file_of(folder: Path, rows: list[dict[str, Any]], name: str = "own file.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(count: int) -> list[dict[str, Any]]:
    return [
        {"Prompt": f"{n}?", "reply": n, "completion": f"<think>so</think>{n}"} for n in range(count)
    ]


def checked(path: Path, *more: str, code: int = 0) -> dict[str, Any]:
    arguments = ("data", "check", str(path), "--store", str(path.parent / "store"), *more)
    found: dict[str, Any] = json.loads(thinktune(*arguments, "--output", "json", code=code).stdout)
    return found


def test_what_is_told_of_a_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, [*rows_of(30), {"Prompt": "lost"}])
    found = checked(path)
    assert found["columns_used"] == {"question": "Prompt", "answer": "completion"}
    assert found["columns_unused"] == ["reply"]
    assert (found["rows"], found["learned"], found["with_reasoning"]) == (31, 30, 30)
    (dropped,) = found["dropped"]
    assert (dropped["reason"], dropped["count"]) == ("no column 'completion'", 1)
    assert dropped["examples"] == [f"{path}:31"]
    assert found["tokens"]["estimated"] is True
    assert found["tokens"]["longer_than"] == {"2048": 0, "4096": 0, "8192": 0}
    assert found["samples"][0]["reasoning"] == "<think>\nso\n</think>\n\n"
    assert found["refused"] is None


def test_the_settings_can_be_pasted(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"Prompt": f"{n}?", "completion": str(n)} for n in range(9)])
    told = thinktune("data", "check", str(path), "--store", str(tmp_path / "store"), columns=80)
    assert f"    path: {json.dumps(str(path))}\n    require_reasoning: false\n" in told.stdout
    assert '    columns: {question: "Prompt", answer: "completion"}\n' in told.stdout
    command = told.stdout.splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:3] == ["thinktune", "run", "RECIPE"]
    again = checked(path, *words[3:])
    assert again["refused"] is None
    assert again["columns_used"] == {"question": "Prompt", "answer": "completion"}


def test_a_file_that_prep_would_refuse(tmp_path: Path) -> None:
    path = file_of(tmp_path, [*rows_of(3), *({"Prompt": "lost"} for _ in range(3))])
    found = checked(path, code=65)
    assert "3 of 6 rows cannot be used" in found["refused"]
    told = thinktune("data", "check", str(path), code=65)
    assert "prep would refuse this" in told.stdout
    assert checked(path, "--set", "data.max_bad_fraction=0.5")["refused"] is None
    nothing = thinktune("data", "check", str(tmp_path / "none.jsonl"), code=65)
    assert nothing.stderr == f"error: {tmp_path}/none.jsonl: no such file; check data.path\n"


def test_a_recipe_s_settings_are_used(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"question": f"{n}?", "answer": "a"} for n in range(9)])
    refused = checked(path, "--recipe", "medical-cot-small", code=65)["refused"]
    assert "set data.require_reasoning=false" in refused
    shown = checked(path, "--model", "r1-distill-qwen-1.5b")["samples"][0]
    assert shown["prompt"][1] == ["<｜User｜>", True]
    wrong = thinktune("data", "check", str(path), "--model", "r1-distil-qwen", code=64)
    assert "did you mean 'r1-distill-qwen" in wrong.stderr


def test_what_rows_hold_never_reaches_a_terminal(tmp_path: Path) -> None:
    rows = [{"question": f"{HOSTILE} {n}", "answer": HOSTILE, HOSTILE: "x"} for n in range(4)]
    rows += [{"question": "q", "answer": ["x"]}]
    told = thinktune("data", "check", str(file_of(tmp_path, rows)), code=65)
    assert "\x1b" not in told.stdout + told.stderr
    assert "<b>" in told.stdout


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_many_rows_in_seconds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [{"question": f"What is {n}?", "answer": f"<think>so</think>{n}"} for n in range(20_000)]
    if name == "a.json":
        path.write_text(json.dumps(rows))
    else:
        lines = (f"{row['question']},{row['answer']}\n" for row in rows)
        path.write_text("question,answer\n" + "".join(lines))
    found = checked(path)
    assert (found["rows"], found["learned"]) == (20_000, 20_000)
    assert found["tokens"]["measured_rows"] < 20_000


def test_rows_of_a_run(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    path = file_of(tmp_path, rows_of(40))
    settings = ["data.dataset=file", f'data.path="{path}"', "data.split.test_rows=5"]
    settings += ["data.prompt={question}", "data.answer={answer}", "data.final_answer=null"]
    sets = [word for setting in settings for word in ("--set", setting)]
    thinktune("run", "demo", "--until", "prep", "--run", "own", "--store", store, *sets)
    shown = json.loads(
        thinktune("data", "show", "own", "--row", "2", "--store", store, "--output", "json").stdout
    )
    (row,) = shown
    assert ["<|im_start|>", True] in row["prompt"]
    assert row["reasoning"] == "<think>\nso\n</think>\n\n"
    assert row["end"] == "<|im_end|>"
    told = thinktune("data", "show", "own", "--store", store).stdout
    assert "learned from here on" in told
    beyond = thinktune("data", "show", "own", "--row", "999", "--store", store, code=64)
    assert "--row 999: the run has" in beyond.stderr
    nothing = thinktune("data", "show", "nothing", "--store", store, code=66)
    assert "prep of run nothing has no committed artifact" in nothing.stderr
