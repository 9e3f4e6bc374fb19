"""Trainers of the tiny model, for the tests of this folder."""

from pathlib import Path

import pytest
from tiny import write_model
from trainer import Make, maker


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder)
    return folder


@pytest.fixture
def make_trainer(tiny_folder: Path, tmp_path: Path) -> Make:
    return maker(tiny_folder, tmp_path)
