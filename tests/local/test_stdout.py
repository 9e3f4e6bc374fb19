"""Who reads the output may leave, or never have been there: the command ends quietly."""

import subprocess
import sys

import pytest

COMMAND = f"{sys.executable} -m thinktune"


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["recipes", "recipes --output json", "plan --all-hardware"])
def test_a_reader_that_leaves_ends_it_quietly(command: str) -> None:
    # `true` reads nothing and is gone before the first line is written.
    ended = _shell(f"{COMMAND} {command} | true; echo ${{PIPESTATUS[0]}}")
    assert ended.stdout.strip() == "1"
    assert ended.stderr == ""


@pytest.mark.parametrize("command", ["recipes", "recipes --output json", "plan demo", "--help"])
def test_a_closed_stdout_is_no_fault(command: str) -> None:
    ended = _shell(f"{COMMAND} {command} >&-")
    assert ended.returncode == 0
    assert ended.stderr == ""
