"""Shared by all tests: a real S3 server and the tiny model's tokenizer, made once.

Fixtures import `tiny` themselves: it loads torch, for which most tests would wait in vain.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server, s3_server


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and so would every command that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json of the tiny model."""
    from tiny_tokenizer import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in the hub's layout."""
    from tiny import write_model

    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder)
    return folder
