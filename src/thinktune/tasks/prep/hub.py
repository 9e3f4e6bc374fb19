"""Snapshots of hub repositories: the commit resolved once, fetched once, then read from the store.

Called by `models` and `sources`. The hub's address and token come from the environment as
huggingface_hub takes them (HF_ENDPOINT, HF_TOKEN).
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from thinktune.schema.errors import DataInvalid, InputMissing, ServiceUnavailable

Kind = Literal["model", "dataset"]


def resolve_revision(repo: str, kind: Kind) -> str:
    """The commit that the default branch points to. Raises ServiceUnavailable, InputMissing."""
    info = _asked(repo, lambda: HfApi().repo_info(repo, repo_type=kind))
    return str(info.sha)  # type: ignore[attr-defined]


def download(repo: str, kind: Kind, revision: str, patterns: Sequence[str], folder: Path) -> None:
    """The files that match `patterns` at that commit, into `folder`."""
    _asked(
        repo,
        lambda: snapshot_download(
            repo,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns),
            local_dir=folder,
        ),
    )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own bookkeeping
    if not any(path.is_file() for path in folder.rglob("*")):
        fault = f"no file matches {', '.join(patterns)} at {revision[:12]}"
        raise DataInvalid(repo, fault, "correct 'files' in the catalog")


def _asked(repo: str, ask: Callable[[], object]) -> object:
    try:
        return ask()
    except (GatedRepoError, RepositoryNotFoundError) as error:
        fault = "the hub refused it: gated, private or not there"
        remedy = "check the name, accept its terms on the hub, and set HF_TOKEN"
        raise InputMissing(repo, fault, remedy) from error
    except RevisionNotFoundError as error:
        raise InputMissing(repo, "no such revision", "correct it in the catalog") from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "check the network and HF_ENDPOINT, or put it into the store's cache beforehand"
        raise ServiceUnavailable(repo, f"the hub did not answer ({reason})", remedy) from error
