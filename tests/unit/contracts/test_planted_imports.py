"""The import contracts of pyproject.toml break where a forbidden import is planted in a copy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import thinktune

PACKAGE = Path(thinktune.__file__).parent
ROOT = Path(__file__).parents[3]
PLANTED = [
    ("tasks/prep/sheet.py", "import openpyxl", "sheets of Excel"),
    ("tasks/publish/files.py", "import huggingface_hub", "the hub's client"),
    ("store/commit.py", "import boto3", "boto3: store.s3"),
    ("store/s3_store.py", "import botocore", "boto3: store.s3"),
    ("launch/status/why.py", "from kubernetes import client", "the Kubernetes client"),
    ("launch/cluster/kube.py", "import urllib3", "the Kubernetes client"),
    ("tasks/prep/stage.py", "import subprocess", "subprocess: helm"),
    ("text/think.py", "import torch", "torch: tasks.model"),
    ("tasks/generate/protocol.py", "import torch", "torch: tasks.model"),
    ("tasks/evaluate/statistics.py", "import peft", "libraries on torch"),
    ("tasks/prep/stage.py", "from thinktune.tasks.train import stage as other", "layers of tasks"),
    ("tasks/train/stage.py", "from thinktune.tasks.prep import stage as other", "layers of tasks"),
    ("tasks/train/guard.py", "from thinktune.tasks.evaluate import stage", "layers of tasks"),
    ("tasks/evaluate/stage.py", "from thinktune.tasks.train import guard", "layers of tasks"),
    ("tasks/generate/protocol.py", "from thinktune.tasks.train import guard", "layers of tasks"),
    ("tasks/train/lifecycle.py", "from thinktune.tasks.train.sft import loss", "the lifecycle of"),
    ("tasks/model/base.py", "from thinktune.tasks.train import stage", "layers of tasks"),
    ("tasks/runtime/pod.py", "from thinktune.tasks.model import base", "layers of tasks"),
    ("launch/cluster/kube.py", "from thinktune.launch import runs", "layers of launch"),
    ("launch/status/why.py", "from thinktune.launch import submit", "layers of launch"),
    ("schema/recipe.py", "from thinktune.store import Store", "layers: cli"),
    ("tasks/prep/stage.py", "from thinktune.plan import shapes", "tasks never plan"),
    ("cli/run.py", "from thinktune.tasks.prep import stage", "the command line runs stages"),
    ("plan/shapes.py", "import numpy", "nothing that loads torch"),
]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(script), "--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    target = folder / "thinktune"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    clean = _lint(folder)
    assert clean.returncode == 0, clean.stdout
    return folder


@pytest.mark.parametrize(("name", "line", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(
    copy: Path, name: str, line: str, contract: str
) -> None:
    path = copy / "thinktune" / name
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        planted = _lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert planted.returncode == 1, planted.stdout
    broken = [text for text in planted.stdout.splitlines() if " BROKEN" in text]
    assert any(text.startswith(contract) for text in broken), planted.stdout
