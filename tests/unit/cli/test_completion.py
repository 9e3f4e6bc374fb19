"""Completion as a shell asks for it, and the scripts it sources."""

import subprocess
import sys

import pytest
from command import environment, thinktune


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script(shell: str) -> None:
    ended = thinktune("completion", shell)
    assert ended.code == 0
    assert "_THINKTUNE_COMPLETE" in ended.out


@pytest.mark.parametrize(
    ("words", "offered"), [("thinktune plan qwen", "qwen-32b"), ("thinktune can", "cancel")]
)
def test_recipes_and_commands(words: str, offered: str) -> None:
    asked = {
        "_THINKTUNE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv = ['thinktune']; from thinktune.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(more=asked), capture_output=True, text=True
    )
    assert f"plain,{offered}" in done.stdout.split(), done.stdout + done.stderr
