"""Token counts where no tokenizer is at hand: four characters a token, marked as an estimate."""

from collections.abc import Sequence

from thinktune.text.templates import Rendered
from thinktune.text.tokens import Encoded, Encoder

CHARACTERS = 4


class Estimate(Encoder):
    """Counts as an Encoder does; the ids mean nothing."""

    def __init__(self) -> None:
        self.longest = 0

    def encode_all(self, examples: Sequence[Rendered]) -> list[Encoded]:
        """So many tokens as there would be, about."""
        return [self._estimated(rendered) for rendered in examples]

    def _estimated(self, rendered: Rendered) -> Encoded:
        parts = [
            -(-len(text) // CHARACTERS)
            for text in (rendered.prompt_text(), rendered.reasoning, rendered.answer + rendered.end)
        ]
        return Encoded([0] * sum(parts), *parts)
