import subprocess
import sys
from pathlib import Path

import pytest

from thinktune.text import math_process
from thinktune.text.verifiers import check

MAIN = """
print("imported")
from thinktune.text.math_process import math_process
if __name__ == "__main__":
    print(math_process().check("1/2", "0.5"))
"""


@pytest.mark.timeout(120)
def test_math_survives_garbage_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(r"\frac{2}{4}", r"\frac{1}{2}", "math")
    assert check(r"So it is \boxed{2\sqrt{2}}.", r"\sqrt{8}", "math")
    assert check("x^2 + 1", "1 + x^2", "math")
    assert not check("x^2 + 2", "1 + x^2", "math")
    assert not check(r"\\[{{{ $$ \frac{", r"\frac{1}{2}", "math")
    assert not check("", "4", "math")
    monkeypatch.setattr(math_process, "KILL_S", 0.5)
    assert not check("$9^{9^{9^{9}}}$", "9", "math")
    monkeypatch.undo()
    assert check("$4$", "4.0", "math")  # the process that was killed has a successor
    math_process.math_process().close()


@pytest.mark.timeout(120)
def test_the_process_leaves_the_main_of_a_package_out(tmp_path: Path) -> None:
    # That of the stage imports torch, which would cost the process seconds and memory.
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "__main__.py").write_text(MAIN)
    command = [sys.executable, "-m", "stage"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["imported", "True"]
