"""`thinktune bench serve` against the real gateway."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from gateway import KEY, Gateway, gateway
from tokenizers import Tokenizer

from thinktune.cli import bench
from thinktune.cli.bench_output import duration, row
from thinktune.cli.main import cli
from thinktune.schema.errors import InputMissing, ServiceUnavailable, SpecInvalid, ThinktuneError
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.load import HeldOutRequest, LoadReport
from thinktune.schema.serve import ServeLimits
from thinktune.store import commit, open_store
from thinktune.tasks.prep import held_out
from thinktune.tasks.prep.shards import QUESTIONS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, tokenizer_file, limits=ServeLimits(max_tokens=64)) as made:
        yield made


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "asked.txt"
    path.write_text("How many hats?\n\nHow many scarves?\n")
    return path


def called(running: Gateway, *arguments: object, key: str | None = KEY) -> Result:
    """The command's result; its error is raised."""
    url = f"http://127.0.0.1:{running.port}"
    runner = CliRunner(env={"THINKTUNE_API_KEY": key})
    words = ["bench", "serve", url, *map(str, arguments)]
    result = runner.invoke(cli, words, standalone_mode=False)
    if isinstance(result.exception, (ThinktuneError, click.ClickException)):
        raise result.exception
    return result


def test_figures_of_every_level(running: Gateway, questions: Path, tmp_path: Path) -> None:
    running.script(text="<think>\nso\n</think>\n\nFour.")
    page = tmp_path / "load.html"
    options = ("--concurrency", "1,2", "--requests", "4", "--output", "json", "--html", page)
    before = len(running.asked())
    result = called(running, "--questions", questions, "--max-tokens", "20", *options)
    assert result.return_value == ExitCode.DONE
    # The server's log is in this process, and on its stdout.
    report = LoadReport.model_validate_json(result.stdout[result.stdout.index("{\n") :])
    assert (report.model, report.questions, report.max_tokens) == ("tiny-run", 2, 20)
    assert [(each.concurrency, each.answered, each.failures) for each in report.levels] == [
        (1, 4, {}),
        (2, 4, {}),
    ]
    whole = running.chat(max_tokens=20)["usage"]["completion_tokens"]
    assert [each.tokens for each in report.levels] == [4 * whole] * 2
    for each in report.levels:
        assert each.first_token is not None and each.latency is not None
        assert 0 < each.first_token.median_s <= each.latency.median_s
        assert each.tokens_per_s == pytest.approx(each.tokens / each.seconds)
    # One short answer before, so that the first level meets a server at work.
    asked = [each["max_tokens"] for each in running.asked()[before:]]
    assert asked[0] == bench.WARM_TOKENS and asked[1:9] == [20] * 8
    assert "CLIENTS" in result.stderr and "<svg" in page.read_text()
    assert KEY not in result.output + page.read_text()


def test_the_questions_of_the_run_that_is_served(
    running: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(module: str, request: HeldOutRequest) -> str:
        assert module == held_out.__name__
        return held_out.held_out(request).model_dump_json()

    monkeypatch.setattr(bench, "ask_module", in_this_process)
    running.script(text="Four.")
    url = f"file://{tmp_path}/store"
    made = tmp_path / "prep"
    made.mkdir()
    columns: dict[str, list[object]] = {name: [None] for name in QUESTIONS.names}
    columns["question"] = ["How many red hats has the shop?"]
    pq.write_table(pa.table(columns, schema=QUESTIONS), made / "test.parquet")
    commit(
        open_store(url),
        "runs/tiny-run/prep",
        made,
        kind="prep",
        run="tiny-run",
        attempt="a",
        inputs={},
        task_sha256=None,
        created="2026-01-01T00:00:00+00:00",
    )
    result = called(running, "--store", url, "--concurrency", "2", "--requests", "2")
    assert result.return_value == ExitCode.DONE
    assert (
        "tiny-run, 1 different questions" in result.stdout and "no knee up to here" in result.stdout
    )
    assert "red hats" in json.dumps(prompts_of(running)[-1])
    with pytest.raises(InputMissing, match="stage prep of run other has committed nothing"):
        called(running, "--store", url, "--run", "other")


def prompts_of(running: Gateway) -> list[str]:
    """What the engine was asked."""
    tokenizer = Tokenizer.from_file(str(running.server._served.weights / "tokenizer.json"))
    return [tokenizer.decode(each["prompt"]) for each in running.asked()]


@pytest.mark.parametrize(
    ("options", "place", "fault"),
    [
        (("--concurrency", "2,1"), "--concurrency", "no list of rising numbers"),
        (("--concurrency", "0,1"), "--concurrency", "no list of rising numbers"),
        (("--concurrency", "1,x"), "--concurrency", "no list of rising numbers"),
        (("--html", "/nowhere/x.html"), "--html", "cannot be written"),
        (("--run", "other"), "--questions", "--run names questions too"),
    ],
)
def test_options_that_say_what_cannot_be(
    running: Gateway, questions: Path, options: tuple[str, ...], place: str, fault: str
) -> None:
    with pytest.raises(SpecInvalid, match=fault) as error:
        called(running, "--questions", questions, *options)
    assert error.value.place.startswith(place)


def test_files_without_questions(running: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"question": "How many?"}\n{"text": "x"}\n')
    with pytest.raises(ThinktuneError, match=r"asked\.jsonl:2: it is no row with a question"):
        called(running, "--questions", path)
    path.write_text("\n")
    with pytest.raises(ThinktuneError, match="it has no question"):
        called(running, "--questions", path)
    path.write_bytes(b"\xff")
    with pytest.raises(ThinktuneError, match="it cannot be read as text"):
        called(running, "--questions", path)


def test_servers_that_refuse(running: Gateway, questions: Path) -> None:
    with pytest.raises(SpecInvalid, match="a key is missing or wrong") as error:
        called(running, "--questions", questions, key="wrong")
    assert "--key-file" in error.value.remedy
    running.server.state.running = running.server.state.limits.requests
    try:
        with pytest.raises(ServiceUnavailable, match="as many requests as it takes"):
            called(running, "--questions", questions)
    finally:
        running.server.state.running = 0


def test_an_engine_that_fails_under_load(running: Gateway, questions: Path) -> None:
    """The warm-up is answered, and no request of the first level."""
    running.script(text="Four")
    original = bench._drive

    def drive(*given: object) -> object:
        running.script(status=400, message="no")
        return original(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "_drive", drive)
        with pytest.raises(
            ServiceUnavailable, match=r"no request of 1 client was .*16 × status 400"
        ):
            called(running, "--questions", questions, "--concurrency", "1,2")


def test_figures_as_people_read_them() -> None:
    assert [duration(each) for each in (0.00123, 0.0456, 0.9996, 1.234, 12.3)] == [
        "1.23 ms",
        "45.6 ms",
        "1.00 s",
        "1.23 s",
        "12 s",
    ]
    report = {
        "concurrency": 2,
        "answered": 0,
        "failures": {"stalled": 2},
        "seconds": 1.0,
        "tokens": 0,
        "tokens_per_s": 0.0,
        "requests_per_s": 0.0,
        "first_token": None,
        "inter_token": None,
        "per_token": None,
        "latency": None,
        "whole": False,
    }
    level = LoadReport.model_validate_json(
        json.dumps(
            {"server": "x", "model": "m", "questions": 1, "max_tokens": None, "levels": [report],
             "knee": None}
        )
    ).levels[0]  # fmt: skip
    assert " ".join(row(level).split()) == "2 0 2 0.0 0.00 – – – stalled: 2 (stopped)"
