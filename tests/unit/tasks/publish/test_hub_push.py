"""Pushing to the hub through its real client, to a server that speaks the hub's paths."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_run import RUN, finished_run
from hub_stand_in import READER, WRITER, Hub, hub_stand_in
from huggingface_hub import constants

from thinktune.schema.errors import ServiceUnavailable, SpecInvalid
from thinktune.schema.publish import PublishReport, PublishRequest
from thinktune.store import Store
from thinktune.tasks.publish.__main__ import publish
from thinktune.tasks.publish.destination import hub_repo

NAME = "org/sums"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("finished")
    return finished_run(f"file://{folder}/store", folder / "made")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_stand_in() as running:
        point_at(running.url, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield running


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads its address when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def push(store: Store, **more: bool) -> PublishReport:
    return publish(PublishRequest(run=RUN, store=store.url, destination=f"hf://{NAME}", **more))


def test_a_repository_is_made_and_filled(run: Store, hub: Hub, tmp_path: Path) -> None:
    planned = push(run, private=True, dry_run=True)
    assert planned.outcome == "dry run" and not hub.repos
    report = push(run, private=True)
    repo = hub.repos[NAME]
    assert repo.private
    assert set(repo.files) == {entry.name for entry in report.files} | {".gitattributes"}
    assert repo.large == {"adapter_model.safetensors"}
    assert f'MODEL = "{NAME}"' in repo.files["README.md"].decode()
    publish(PublishRequest(run=RUN, store=run.url, destination=str(tmp_path / "out")))
    same = {name for name in repo.files if (tmp_path / "out" / name).exists()}
    differ = {n for n in same if (tmp_path / "out" / n).read_bytes() != repo.files[n]}
    assert differ == {"README.md", "SHA256SUMS"}  # a card names where its model is


def test_the_same_command_uploads_only_what_is_missing(run: Store, hub: Hub) -> None:
    hub.refuse_commits = 1
    with pytest.raises(ServiceUnavailable, match="status 500") as raised:
        push(run)
    assert "run the same command again" in raised.value.remedy
    assert len(hub.sent) == 1  # the weights, without a commit
    assert push(run).outcome == "written"
    assert len(hub.sent) == 8  # and nothing twice
    again = push(run)
    assert again.outcome == "unchanged" and again.sent == () and len(hub.sent) == 8
    del hub.repos[NAME].files["chat_template.jinja"]
    assert push(run).sent == ("chat_template.jinja",)
    assert hub.sent[8:] == ["chat_template.jinja"]


def test_a_repository_with_other_content(run: Store, hub: Hub) -> None:
    push(run)
    hub.repos[NAME].files["README.md"] = b"mine"
    with pytest.raises(SpecInvalid, match=r"hf://org/sums: it holds another README\.md; name"):
        push(run)
    del hub.repos[NAME].files["README.md"]
    hub.repos[NAME].files["other.bin"] = b"mine"
    with pytest.raises(SpecInvalid, match=r"something else: other\.bin"):
        push(run)
    assert "README.md" not in hub.repos[NAME].files


def test_a_public_repository_is_not_taken_for_a_private_one(run: Store, hub: Hub) -> None:
    push(run)
    with pytest.raises(SpecInvalid, match="everybody can read it"):
        push(run, private=True)


def test_tokens(run: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, error, said in (
        ("", SpecInvalid, "HF_TOKEN is not set"),
        (READER, ServiceUnavailable, "the token may not write there"),
        ("hf_nobody_0123456789", ServiceUnavailable, "does not know the token"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(error, match=said) as raised:
            push(run)
        assert not token or token not in str(raised.value)
    assert not hub.repos


def test_a_hub_that_does_not_answer(run: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ServiceUnavailable, match="the hub did not answer") as raised:
        push(run)
    assert "HF_ENDPOINT" in raised.value.remedy


@pytest.mark.parametrize(
    "address", ["hf://", "hf://name", "hf://a/b/c", "hf://a/../b", "hf://a b/c"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(SpecInvalid, match="hf://owner/name"):
        hub_repo(address)
