"""What makes another run and what does not: changes of a copy of the package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import thinktune
from thinktune.recipes.code_version import (
    LAUNCHER_ONLY,
    MAKE_NO_ARTIFACT,
    STAGE_PACKAGES,
    code_digest,
    code_version,
)

PACKAGE = Path(thinktune.__file__).parent
COMMITTED = "94e2afa131fd1dda807107a21b9da63f10dc02256e87bd162d749b520444c406"


DIGEST = code_digest(PACKAGE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "thinktune"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(target) == DIGEST
    return target


def _changed(copy: Path, name: str, text: str) -> bool:
    (copy / name).write_text(text, encoding="utf-8", newline="")
    return code_digest(copy) != DIGEST


def _text(copy: Path, name: str) -> str:
    return (copy / name).read_text(encoding="utf-8")


def test_prose_and_layout_keep_the_run(copy: Path) -> None:
    source = _text(copy, "store/commit.py")
    assert not _changed(copy, "store/commit.py", f"# A comment.\n\n\n{source}\n\n")
    assert not _changed(copy, "store/commit.py", source.replace("\n", "\r\n"))
    first = source.index('"""') + 3
    assert not _changed(copy, "store/commit.py", f"{source[:first]}Other words. {source[first:]}")


def test_the_description_of_a_field_keeps_the_run(copy: Path) -> None:
    source = _text(copy, "schema/manifest.py")
    prose = source.replace('"""Size', '"""The size')
    assert prose != source
    assert not _changed(copy, "schema/manifest.py", prose)


def test_an_empty_text_counts_where_it_is_one_of_several(copy: Path) -> None:
    name = "store/__init__.py"
    text = _text(copy, name)
    assert _changed(copy, name, text + '\nADDED = ["a"]\n')
    with_one = code_digest(copy)
    assert _changed(copy, name, text + '\nADDED = ["", "a"]\n')
    assert code_digest(copy) != with_one


@pytest.mark.parametrize("package", ["schema", "store", "tasks", "text"])
def test_code_that_a_stage_runs_makes_another_run(copy: Path, package: str) -> None:
    name = f"{package}/__init__.py"
    assert _changed(copy, name, _text(copy, name) + "\nADDED = 1\n")


def test_the_page_of_the_report_makes_another_run(copy: Path) -> None:
    (page,) = copy.rglob("report.html.j2")
    name = str(page.relative_to(copy))
    text = _text(copy, name)
    assert not _changed(copy, name, text.replace("\n", "\r\n"))
    assert _changed(copy, name, text.replace("<main>", "<main class='wide'>"))


@pytest.mark.parametrize(
    "name",
    [
        "launch/submit.py",
        "cli/run.py",
        "plan/shapes.py",
        "schema/cluster.py",
        "schema/serve.py",
        "tasks/publish/card.py",
        "tasks/serve/server.py",
    ],
)
def test_launcher_and_server_make_no_other_run(copy: Path, name: str) -> None:
    assert not _changed(copy, name, _text(copy, name) + "\nADDED = 1\n")


def test_no_stage_imports_what_the_digest_leaves_out() -> None:
    left_out = {f"thinktune.schema.{name.removesuffix('.py')}" for name in LAUNCHER_ONLY}
    counted = tuple(f"thinktune.{package}" for package in STAGE_PACKAGES)
    for package in STAGE_PACKAGES:
        for path in (PACKAGE / package).rglob("*.py"):
            if package == "schema" and path.name in LAUNCHER_ONLY:
                continue
            if any(path.is_relative_to(PACKAGE / name) for name in MAKE_NO_ARTIFACT):
                continue
            text = path.read_text(encoding="utf-8")
            imported = re.findall(r"^\s*(?:from|import) (thinktune\.[\w.]+)", text, re.MULTILINE)
            for module in set(imported) - {"thinktune.recipes.code_version"}:
                assert module.startswith(counted) and module not in left_out, path
                assert not module.startswith(("thinktune.tasks.serve", "thinktune.tasks.publish"))


def test_a_tree_has_the_digest_that_it_had(tmp_path: Path) -> None:
    """Of a committed tree, so that a change of the digest itself shows, on every Python."""
    (tmp_path / "store").mkdir()
    source = 'A = f"{1 + 2:>{3}} {A!r}"\n\n\ndef f(x: int = 1) -> str | None: ...\n'
    (tmp_path / "store" / "one.py").write_text(source, encoding="utf-8")
    (tmp_path / "store" / "two.json").write_text("{}\n", encoding="utf-8")
    assert code_digest(tmp_path) == COMMITTED


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_gives_the_same(version: str) -> None:
    """A launcher and an image may run on different ones."""
    python = shutil.which(f"python{version}")
    if python is None or python == sys.executable:
        pytest.skip(f"no Python {version} here besides this one")
    done = subprocess.run(
        [python, "-c", "from thinktune.recipes.code_version import *; print(code_version())"],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 127:  # a pyenv shim without that version behind it
        pytest.skip(f"no Python {version} here")
    assert done.stdout.strip() == code_version(), done.stderr
