"""What a server is told: which run it serves, where it listens, and its limits."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.recipe import EngineChoice
from thinktune.schema.serving import ServeExecution

BASE_MODEL: Final = "base"
"""Name under which the base model answers beside the tuned one."""
KEY_VARIABLE: Final = "THINKTUNE_API_KEY"
"""Environment variable with the key that clients must send, where no file holds one."""
READY_LINE: Final = "serves"
"""First word of the line that a server prints when it answers."""

Seconds = Annotated[float, Field(gt=0)]


class ServeLimits(Closed):
    """What one server takes. Requests beyond a limit get an error of OpenAI's form."""

    body_bytes: Count = 8 << 20
    """Longest body of a request, in bytes."""
    body_s: Seconds = 20
    """Seconds within which the head of a request must have come, and then its body."""
    messages: Count = 512
    """Most messages of one conversation."""
    max_tokens: Count | None = None
    """Most tokens of one answer, reasoning included. Null leaves it to the window."""
    choices: Count = 8
    """Most answers to one request."""
    requests: Count = 256
    """Most requests at a time; one more gets 503 with Retry-After."""
    connections: Count = 2048
    """Most connections at a time."""
    document_bytes: Count = 4 << 20
    """Most bytes of documents with their names, of one request or of the server's own folder."""
    passages: Count = 4
    """Passages of documents that stand in front of a question."""


class ServeTimes(Closed):
    """How long a server waits for its engine."""

    canary_s: Seconds = 10
    """Seconds between two requests that ask whether the engine still answers."""
    unready_s: Seconds = 20
    """Seconds without any token, while one is waited for, after which the server is unready."""
    hung_s: Seconds = 120
    """Seconds without any token, while one is waited for, after which the engine is killed and
    started again."""
    start_s: Seconds = 3600
    """Seconds within which an engine must be up."""
    retry_s: Seconds = 60
    """Seconds that a request waits for an engine that is starting again."""
    grace_s: Seconds = 120
    """Seconds that answers have left after the server was asked to stop."""


USUAL_TIMES = ServeTimes()
SLOW_TIMES = ServeTimes(unready_s=30, hung_s=900)
"""Of an engine that may read a long prompt for minutes before its first token: on CPUs, and
transformers, which reads one prompt after the other."""


class ServeTask(Closed):
    """Serve: answer questions with the adapter of a run, and with its base model."""

    run: str
    """Id of the run, which is also the name of its model."""
    store: str
    """Address of the store: `file:///path` or `s3://bucket/prefix`."""
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port that the server listens on. 0 takes a free one."""
    key_file: str | None = None
    """File with the keys that clients may send, one a line. Null takes THINKTUNE_API_KEY, and no
    key where that is not set either, which only an address of this machine itself allows."""
    engine: EngineChoice = "auto"
    """What computes the answers. `auto` takes vLLM where it is installed."""
    window: Count | None = None
    """Longest prompt with its answer, in tokens. Null takes what the model supports, at most
    8,192."""
    unpromoted: bool = False
    """Whether a run is served that its evaluation did not promote, or that has none."""
    documents: str | None = None
    """Folder of text files that answers may draw on."""
    limits: ServeLimits = ServeLimits()
    times: ServeTimes = ServeTimes()
    server: str | None = None
    """Name of a server whose runs change while it serves, which is also the name of its first run's
    model. Null serves `run` under its own name, for good."""
    desired_file: str | None = None
    """File that says which runs such a server serves (`thinktune.schema.served.Desired`). It is
    followed while it changes."""
    adapters: Count = 1
    """Places for adapters on the GPU."""
    execution: ServeExecution | None = None
    """What the plan decided for vLLM on GPUs. Null leaves it to what the engine finds."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.run == BASE_MODEL:
            raise ValueError(
                f"a run called '{BASE_MODEL}' cannot be told from its base model; "
                "give the run another name"
            )
        return self
