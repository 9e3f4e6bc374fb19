"""`thinktune data`: what a newcomer is told of a file, and what of a run."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from thinktune.cli.data import request_of
from thinktune.tasks.prep.check import check

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
    """The report that `data check --output json` prints, made in this process."""
    given: dict[str, list[str]] = {}
    for option, value in zip(more[::2], more[1::2], strict=True):
        given.setdefault(option, []).append(value)
    (recipe,), (model,) = given.get("--recipe", [None]), given.get("--model", [None])
    store = (path.parent / "store").as_uri()
    report = check(request_of(str(path), recipe, model, tuple(given.get("--set", ())), store))
    assert (65 if report.refused else 0) == code
    found: dict[str, Any] = report.model_dump(mode="json")
    return found


def test_what_is_told_of_a_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, [*rows_of(30), {"Prompt": "lost"}])
    found = checked(path)
    assert found["columns_used"] == {"question": "Prompt", "answer": "completion"}
    assert found["columns_unused"] == ["reply"]
    assert (found["rows"], found["learned"], found["with_reasoning"]) == (31, 30, 30)
    arguments = ("data", "check", str(path), "--store", str(tmp_path / "store"))
    assert json.loads(thinktune(*arguments, "--output", "json").stdout) == found
    (dropped,) = found["dropped"]
    assert (dropped["reason"], dropped["count"]) == ("no column 'completion'", 1)
    assert dropped["examples"] == ["own file.jsonl:31"]
    assert found["tokens"]["estimated"] is True
    assert found["tokens"]["longer_than"] == {"2048": 0, "4096": 0, "8192": 0}
    assert found["samples"][0]["reasoning"] == "<think>\nso\n</think>\n\n"
    assert found["refused"] is None


def test_the_settings_can_be_pasted(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"Prompt": f"{n}?", "completion": str(n)} for n in range(9)])
    told = thinktune("data", "check", str(path), "--store", str(tmp_path / "store"), columns=80)
    assert f"    path: {json.dumps(str(path))}\n    require_reasoning: false\n" in told.stdout
    mapped = thinktune("data", "check", str(path), "--set", "data.columns.question=Prompt").stdout
    assert "    columns: {question: Prompt}\n" in mapped
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


def sheet(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    settings = ("data.dataset=file", f'data.path="{folder / "own file.jsonl"}"')
    sets = [word for setting in settings for word in ("--set", setting)]
    more = ("--store", str(folder / "store"), *sets, "--set", "data.answer={answer}")
    return thinktune("data", "sheet", "demo", *arguments, *more, code=code)


FORMULA = '=HYPERLINK("http://x","y")'


@pytest.mark.parametrize("name", ["audit.xlsx", "audit.csv"])
def test_a_sheet_goes_out_and_comes_back(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"{n}?", "answer": f"<think>so {n}</think>{n}"} for n in range(4)]
    rows[0]["question"] = FORMULA
    rows[1]["answer"] = "<think>-1</think>-1"
    rows.append({"question": "lost", "answer": "<think>never ends"})
    file_of(tmp_path, rows)
    out, back = tmp_path / name, tmp_path / "back.jsonl"
    told = sheet(tmp_path, "-o", str(out)).stdout
    assert told == f"{out}: 4 rows\ndropped, unfinished think part: 1\n"
    if name.endswith(".xlsx"):
        book = openpyxl.load_workbook(out)
        page = book.worksheets[0]
        assert (page["B2"].value, page["B2"].data_type) == (FORMULA, "s")
        page["F3"], page["G4"], page["G5"] = "minus one", "no", "YES"
        book.save(out)
    else:
        lines = list(csv.reader(out.open(encoding="utf-8-sig", newline="")))
        assert lines[1][1] == f"'{FORMULA}"
        lines[2][5], lines[3][6], lines[4][6] = "minus one", "no", "YES"
        with out.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, delimiter=";").writerows(lines)  # as Excel writes it in Europe
    told = sheet(tmp_path, "--read", str(out), "-o", str(back)).stdout
    assert told == f"{back}: 3 rows, 1 of them corrected; 1 were not to be kept\n"
    read_back = [json.loads(line) for line in back.read_text().splitlines()]
    assert [row["question"] for row in read_back] == [FORMULA, "1?", "3?"]
    assert [row["answer"] for row in read_back] == ["0", "minus one", "3"]
    assert checked(back)["learned"] == 3


def test_a_sheet_that_is_none_of_ours(tmp_path: Path) -> None:
    file_of(tmp_path, rows_of(2))
    wrong, back = tmp_path / "audit.csv", str(tmp_path / "back.jsonl")
    wrong.write_text("a,b\n1,2\n")
    assert "has no column 'id'" in sheet(tmp_path, "--read", str(wrong), "-o", back, code=65).stderr
    assert "name it .jsonl" in sheet(tmp_path, "--read", str(wrong), "-o", "x", code=64).stderr
    assert "name it .xlsx or .csv" in sheet(tmp_path, "-o", str(tmp_path / "a.ods"), code=64).stderr
    fake = tmp_path / "a.xlsx"
    fake.write_text("x")
    ended = sheet(tmp_path, "--read", str(fake), "-o", back, code=65)
    assert "cannot be read as an Excel workbook" in ended.stderr


def test_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "a"} for n in range(5)]
    path = file_of(tmp_path, [*rows, rows[0]])
    asked = {"provider": "openai", "model": "m", "budget": {"money": 1e-9}}
    asked |= {"base_url": "http://127.0.0.1:9/v1"}
    asked |= {"prices": {"input_per_million": 1.0, "output_per_million": 2.0}}
    generate = {"column": "summary", "prompt": "Sum up {question}", "llm": asked}
    sets = ["data.dataset=file", f'data.path="{path}"', f"data.generate={json.dumps(generate)}"]
    more = [word for setting in sets for word in ("--set", setting)]
    more += ["--store", str(tmp_path / "store")]
    told = thinktune("data", "generate", "demo", "--dry-run", *more).stdout
    assert "prompt 1\nSum up 0?\n" in told
    assert "5 requests, 0 of them answered already\n" in told
    assert "that is more than the budget allows" in told
    facts = json.loads(
        thinktune("data", "generate", "demo", "--dry-run", *more, "--output", "json").stdout
    )
    assert (facts["requests"], facts["counted_by"]) == (5, "characters / 4")
    assert "add --dry-run" in thinktune("data", "generate", "demo", *more, code=64).stderr
    nothing = thinktune("data", "generate", "demo", "--dry-run", code=64)
    assert "the recipe asks no language model" in nothing.stderr
