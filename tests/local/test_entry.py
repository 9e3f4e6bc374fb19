"""The containers' entry points: a task file that will not do."""

import subprocess
import sys
from pathlib import Path

import pytest

from thinktune.schema.exit_codes import EXIT_CODES, ExitCode
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage


def stage(name: Stage, task: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", STAGE_INFO[name].module, "--task", str(task)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", STAGES)
def test_a_task_that_is_no_task(name: Stage, tmp_path: Path) -> None:
    task = tmp_path / "task.json"
    for text, said in [
        (None, "no task file"),
        ("{", "not JSON"),
        ('{"stage": "nonsense"}', f"'stage' is 'nonsense'; known: {name}"),
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
