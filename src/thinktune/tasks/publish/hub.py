"""A repository of the Hugging Face hub as a destination, by the hub's own client.

Called by `__main__`. The address comes from HF_ENDPOINT and the token from HF_TOKEN. The token is
in no argument, and an error of the client is said without what it sent.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from thinktune.schema.errors import ServiceUnavailable, SpecInvalid, ThinktuneError
from thinktune.schema.manifest import FileEntry
from thinktune.tasks.publish.destination import missing

TOKEN_VARIABLE = "HF_TOKEN"
OF_THE_HUB = frozenset({".gitattributes"})
"""Files that the hub itself puts into a new repository."""
REMEDY = "name another repository, or delete its files on the hub"
SAID_CHARS = 200

T = TypeVar("T")


class Repository:
    """A model repository that may not be there yet."""

    def __init__(self, repo: str) -> None:
        """Asks nothing yet. Raises SpecInvalid without a token."""
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        self._place = f"hf://{repo}"
        if not token:
            fault = f"the hub needs a token, and {TOKEN_VARIABLE} is not set"
            remedy = (
                "make one with the right to write at https://huggingface.co/settings/tokens, "
                f"and export {TOKEN_VARIABLE}"
            )
            raise SpecInvalid(self._place, fault, remedy)
        self._repo = repo
        self._token = token
        self._api = HfApi(token=token)

    def missing(self, made: Path, files: tuple[FileEntry, ...], *, private: bool) -> list[str]:
        """What of the export is not there; all of it where there is no such repository. Raises
        SpecInvalid where it holds something else, or is public and was to be private."""
        try:
            info = self._asked(lambda: self._api.repo_info(self._repo))
        except RepositoryNotFoundError:
            return [entry.name for entry in files]
        if private and not info.private:
            fault = "the repository is there already, and everybody can read it"
            raise SpecInvalid(self._place, fault, "make it private on the hub, or name another")
        return missing(self._place, files, self._found(made, files), REMEDY)

    def upload(
        self, made: Path, files: tuple[FileEntry, ...], names: list[str], *, private: bool
    ) -> None:
        """Makes the repository if need be, commits those files, and asks what it then holds."""
        # None leaves it to what the organization has as its default.
        visibility = True if private else None
        self._asked(lambda: self._api.create_repo(self._repo, private=visibility, exist_ok=True))
        self._asked(
            lambda: self._api.upload_folder(
                repo_id=self._repo,
                folder_path=made,
                allow_patterns=names,
                commit_message="Upload of thinktune publish",
            )
        )
        if left := self.missing(made, files, private=private):
            fault = f"the hub reported a finished upload, but does not hold {left[0]}"
            raise ServiceUnavailable(self._place, fault, "run the command again")

    def _found(self, made: Path, files: tuple[FileEntry, ...]) -> dict[str, str]:
        """SHA-256 of the files that are there. The hub knows it of large files alone; of a small
        one it knows git's digest, which is compared with that of ours."""
        ours = {entry.name: entry.sha256 for entry in files}
        found = {}
        for item in self._asked(lambda: list(self._api.list_repo_tree(self._repo, recursive=True))):
            if not isinstance(item, RepoFile) or item.path in OF_THE_HUB:
                continue
            if item.lfs is not None:
                found[item.path] = item.lfs.sha256
            elif item.path in ours and item.blob_id == _git_digest(made / item.path):
                found[item.path] = ours[item.path]
            else:
                found[item.path] = item.blob_id
        return found

    def _asked(self, ask: Callable[[], T]) -> T:
        """Asks the hub. Raises RepositoryNotFoundError, and ServiceUnavailable for all else."""
        try:
            return ask()
        except (RepositoryNotFoundError, ThinktuneError):
            raise
        except HfHubHTTPError as error:
            raise self._refused(error) from None
        except (HTTPError, OfflineModeIsEnabled, OSError, RuntimeError, ValueError) as error:
            if isinstance(error.__cause__, HfHubHTTPError):
                raise self._refused(error.__cause__) from None
            fault = f"the hub did not answer ({self._said(error)})"
            remedy = "check the network and HF_ENDPOINT; the same command uploads what is missing"
            raise ServiceUnavailable(self._place, fault, remedy) from None

    def _refused(self, error: HfHubHTTPError) -> ServiceUnavailable:
        status = error.response.status_code
        if status == 401:
            fault = f"the hub does not know the token in {TOKEN_VARIABLE}"
            remedy = "make a new one at https://huggingface.co/settings/tokens"
        elif status == 403:
            owner = self._repo.partition("/")[0]
            fault = "the token may not write there"
            remedy = f"take one with the right to write to {owner}, or name another owner"
        else:
            fault = f"the hub answered with status {status} ({self._said(error)})"
            remedy = "run the same command again; it uploads what is missing"
        return ServiceUnavailable(self._place, fault, remedy)

    def _said(self, error: Exception) -> str:
        """What a message of the client says, without addresses, which may be signed."""
        said = re.sub(r"https?://\S+", "…", " ".join(str(error).split()))
        return said.replace(self._token, "…")[:SAID_CHARS] or type(error).__name__


def _git_digest(path: Path) -> str:
    """Git's name of the file's content: SHA-1 behind a header. It proves nothing, but the hub has
    no other for small files."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
