"""What later stages must know of the prompts that prep rendered: `prompt.json` of its artifact."""

from typing import Annotated

from pydantic import Field

from thinktune.schema.closed import Closed
from thinktune.schema.manifest import Sha256

PROMPT_FILE = "prompt.json"
"""Name of the file in prep's artifact."""

TokenId = Annotated[int, Field(ge=0)]


class PromptFacts(Closed):
    """How the prompts were made, and where an answer to them ends."""

    stop_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    """Tokens at which generation stops; the first also fills shorter prompts of a batch."""
    template_sha256: Sha256
    """Digest of the chat template and prompt that rendered the text, as in the manifest."""
    opens_think: bool
    """Whether the prompts end in `<think>`, so that answers begin inside the think part."""
