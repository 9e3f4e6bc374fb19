"""The answer arrives on stdout alone, whoever else writes there."""

import subprocess
import sys

PROGRAM = """
import os, subprocess, sys
from thinktune.tasks.runtime.answer_channel import answer_channel

with answer_channel() as answer:
    print("a library's line")
    subprocess.run(["echo", "a process of a library"], check=True)
    answer.write("the answer\\n")
print("afterwards")
"""


def test_the_answer_is_alone_on_stdout() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "the answer\nafterwards\n", ended.stderr
    assert sorted(ended.stderr.splitlines()) == ["a library's line", "a process of a library"]
