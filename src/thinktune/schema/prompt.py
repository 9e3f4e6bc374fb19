"""What later stages must know of the prompts that prep rendered: `prompt.json` of its artifact."""

from typing import Annotated

from pydantic import Field

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import Sha256

PROMPT_FILE = "prompt.json"
"""Name of the file in prep's artifact."""

TokenId = Annotated[int, Field(ge=0)]


class PromptTemplate(Closed):
    """All that decides the text of a prompt: serving renders requests with what prep rendered rows
    with."""

    model_name: str
    """Name of the model in the catalog."""
    model: ModelEntry
    """The model's entry in the catalog, as it was."""
    system: str | None
    """The recipe's `data.system`."""
    prompt: str
    """The recipe's `data.prompt`."""
    answer: str
    """The recipe's `data.answer`."""
    final_answer: str | None
    """The recipe's `data.final_answer`."""
    conversations: bool
    """Whether turns are taken as they stand, because the dataset's rows are conversations."""


class PromptFacts(Closed):
    """How the prompts were made, and where an answer to them ends."""

    stop_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    """Tokens at which generation stops; the first also fills shorter prompts of a batch."""
    template_sha256: Sha256
    """Digest of the chat template and prompt that rendered the text, as in the manifest."""
    opens_think: bool
    """Whether the prompts end in `<think>`, so that answers begin inside the think part."""
    template: PromptTemplate | None = None
    """What rendered the prompts. Null in artifacts of earlier versions, which cannot be served."""
