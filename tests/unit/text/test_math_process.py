import subprocess
import sys
from pathlib import Path

import pytest

from thinktune.text import math_process
from thinktune.text.math_process import MathProcesses, usable_cores
from thinktune.text.verifiers import check

MAIN = """
print("imported")
from thinktune.text.math_process import math_processes
if __name__ == "__main__":
    print(math_processes().check_all([("$x+1$", "$1+x$")])[0])
"""


HANGS = ("$9^{9^{9^{9}}}$", "$x+1$")
SAME = ("$x^2 + 1$", "$1 + x^2$")
OTHER = ("$x^2 + 2$", "$1 + x^2$")


@pytest.mark.timeout(120)
def test_math_survives_garbage_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(r"\frac{2}{4}", r"\frac{1}{2}", "math")
    assert check(r"So it is \boxed{2\sqrt{2}}.", r"\sqrt{8}", "math")
    assert not check(r"\\[{{{ $$ \frac{", r"\frac{1}{2}", "math")
    assert not check("", "4", "math")
    processes = math_process.math_processes()
    monkeypatch.setattr(math_process, "KILL_S", 0.5)
    # The one that hangs is killed; those that it would have had next are not lost.
    assert processes.check_all([SAME, HANGS, OTHER, SAME]) == [True, False, False, True]
    monkeypatch.undo()
    assert processes.check_all([SAME]) == [True]  # the process that was killed has a successor
    processes.close()


@pytest.mark.timeout(120)
def test_many_pairs_are_divided_among_the_cores_and_keep_their_order() -> None:
    processes = MathProcesses()
    pairs = [(f"${n}x + {m}$", f"${m} + {n}x$") for n in range(1, 11) for m in range(1, 11)]
    pairs += [(f"${n}x$", f"${n + 1}x$") for n in range(1, 41)]
    assert processes.check_all([*pairs, *pairs]) == ([True] * 100 + [False] * 40) * 2
    assert len(processes._idle) == min(usable_cores(), 5)  # 140 different pairs, 32 at once
    processes.close()


@pytest.mark.timeout(120)
def test_the_caller_can_stop_it() -> None:
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise KeyboardInterrupt

    processes = MathProcesses()
    with pytest.raises(KeyboardInterrupt):
        processes.check_all([HANGS] * 2, stop)
    assert processes._idle == []


@pytest.mark.timeout(120)
def test_the_process_leaves_the_main_of_a_package_out(tmp_path: Path) -> None:
    # That of the stage imports torch, which would cost the process seconds and memory.
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "__main__.py").write_text(MAIN)
    command = [sys.executable, "-m", "stage"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["imported", "True"]


@pytest.mark.timeout(120)
def test_a_process_that_died_while_idle_costs_no_verdict() -> None:
    processes = MathProcesses()
    assert processes.check_all([SAME]) == [True]
    processes._idle[0]._process.kill()
    processes._idle[0]._process.join()
    assert processes.check_all([SAME]) == [True]
    processes.close()
