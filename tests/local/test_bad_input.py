"""Everything a user can get wrong with data and places: one paragraph, the right code, no trace."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ended, thinktune
from small_disk import mounted
from tiny import seed_store, write_jobs

from thinktune.store import open_store, read_manifest

THOUGHT = "<think>\n2 + 2 = 4\n</think>\n\nIt is 4.\n\nFinal Answer: 4"
Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bad-input")
    jobs = write_jobs(folder / "jobs")
    url = f"file://{folder}/store"
    seed_store(url, folder / "seed")

    def call(
        *settings: str, store: str = url, name: str = "r", until: str = "prep", **more: str
    ) -> Ended:
        sets = [word for setting in settings for word in ("--set", setting)]
        where = ["--until", until, "--run", name, "--store", store]
        ended = thinktune("run", "tiny", "--local", *where, *sets, jobs=jobs, more=more)
        if ended.code:
            assert "Traceback" not in ended.err + ended.out
            assert len([line for line in ended.err.splitlines() if line.startswith("error")]) == 1
            if store == url:
                assert read_manifest(open_store(url), f"runs/{name}/{until}") is None
        return ended

    return call


def own(path: Path, rows: list[object]) -> tuple[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "data.dataset=file", f"data.path={path}"


def questions(count: int, answer: str = THOUGHT) -> list[object]:
    return [{"question": f"2 + 2, for the {n}th time?", "answer": answer} for n in range(count)]


def test_own_files_in_every_form(run: Run, tmp_path: Path) -> None:
    said = [(f"2 + 2, for the {n}th time?", THOUGHT) for n in range(20)]
    forms: dict[str, list[object]] = {
        "sharegpt": [
            {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
            for q, a in said
        ],
        "messages": [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
            for q, a in said
        ],
        "alpaca": [{"instruction": q, "input": "", "output": a} for q, a in said],
        "columns": [{"question": q, "answer": a} for q, a in said],
    }
    for name, rows in forms.items():
        answer = "data.answer='{answer}'"
        ended = run(*own(tmp_path / f"{name}.jsonl", rows), answer, name=f"own-{name}")
        assert ended.code == 0, ended.err
        assert "8 training, 4 validation, 8 test examples of 20 rows" in ended.out


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([{"q": "x", "a": "y"}], [], "no column 'question', which plays the role 'question'"),
        (questions(20, "It is 4."), [], "20 of 20 rows cannot be used"),
        (questions(20, "<think>and on"), [], "unfinished think part: 20"),
        (questions(20), [], "no summary: 20, first"),
        (
            questions(20),
            ["data.filters=[{column: answer, any_of: [other]}]"],
            "none of 20 rows is left (filter on answer: 20); loosen data.filters",
        ),
        (
            questions(20),
            ["data.filters=[{column: anser, not_empty: true}]"],
            "did you mean 'answer'",
        ),
        (questions(5), ["data.answer='{answer}'"], "5 distinct questions are left, and 12 are"),
        (
            questions(20),
            ["data.answer='{answer}'", "data.max_tokens=16"],
            "raise data.max_tokens, or set data.too_long=truncate",
        ),
    ],
)
def test_data_that_will_not_do(
    run: Run, tmp_path: Path, rows: list[object], settings: list[str], said: str
) -> None:
    ended = run(*own(tmp_path / "own.jsonl", rows), *settings)
    assert ended.code == 65, ended.err
    assert said in ended.err


def test_a_truncated_file(run: Run, tmp_path: Path) -> None:
    settings = own(tmp_path / "own.jsonl", questions(9))
    path = tmp_path / "own.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    ended = run(*settings, "data.answer='{answer}'")
    assert ended.code == 65
    assert "1 of 9 rows cannot be used" in ended.err
    assert "the last row is cut off: 1, first" in ended.err


def test_a_file_that_is_not_what_its_name_says(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    ended = run(*own(path, questions(20)))
    assert ended.code == 65
    assert "the name says Parquet, the content is not Parquet" in ended.err


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    ended = run("data.dataset=file", f"data.path={tmp_path}/none.jsonl")
    assert ended.code == 65
    assert "learns from this file, which cannot be read (No such file or directory)" in (ended.err)


def test_a_full_disk(run: Run, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = f"file://{disk}/store"
        seed_store(store, tmp_path / "seed")
        left = shutil.disk_usage(disk).free - 32 * 1024
        (disk / "filler").write_bytes(bytes(left))
        ended = run(store=store)
        assert ended.code == 71, ended.err
        assert "no space left on device" in ended.err.lower()
        assert read_manifest(open_store(store), "runs/r/prep") is None


def test_a_full_disk_for_temporary_files(run: Run, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        ended = run(TMPDIR=str(disk))
        assert ended.code == 71, ended.err


def test_a_full_disk_for_a_checkpoint(run: Run, tmp_path: Path) -> None:
    settings = ("train.rank=512", "train.max_steps=2")
    assert run(*settings, name="full").code == 0
    with mounted(tmp_path / "disk", "size=1m") as disk:
        ended = run(*settings, name="full", until="train", TMPDIR=str(disk))
        assert ended.code == 71, ended.err
        assert "no space left on device" in ended.err.lower()


def test_a_tracker_that_is_not_set_up(run: Run) -> None:
    settings = ("train.tracking=[wandb]",)
    ended = run(*settings, name="tracked", until="train")
    assert ended.code == 66, ended.err
    assert "wandb" in ended.err
    assert "--set 'train.tracking=[]'" in ended.err


def test_a_store_that_does_not_answer(run: Run) -> None:
    ended = run(
        store="s3://bucket/prefix",
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="canary-of-tests",
        AWS_DEFAULT_REGION="us-east-1",
    )
    assert ended.code == 69, ended.err
    assert "s3://bucket/prefix" in ended.err
    assert "canary-of-tests" not in ended.err + ended.out


def test_a_store_that_is_no_store(run: Run) -> None:
    ended = run(store="ftp://somewhere")
    assert ended.code == 64
    assert "write file:///path or s3://bucket/prefix" in ended.err
