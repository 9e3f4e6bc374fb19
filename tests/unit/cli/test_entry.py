"""The containers' entry points: a task file that will not do."""

import subprocess
import sys
from pathlib import Path

import pytest

from thinktune.schema.exit_codes import EXIT_CODES, ExitCode


def stage(name: str, task: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"thinktune.tasks.{name}", "--task", str(task)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["prep", "train", "evaluate"])
def test_a_task_that_is_no_task(name: str, tmp_path: Path) -> None:
    task = tmp_path / "task.json"
    for text, said in [
        (None, "no task file"),
        ("{", "not JSON"),
        ('{"stage": "serve"}', f"'stage' is 'serve'; known: {name}"),
        ('{"rnu": "x"}', "unknown key 'rnu'"),
    ]:
        if text is not None:
            task.write_text(text)
        done = stage(name, task)
        assert done.returncode == ExitCode.SPEC_INVALID
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_CODES) == set(ExitCode)
