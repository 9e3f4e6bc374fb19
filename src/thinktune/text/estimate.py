"""Token counts where no tokenizer is at hand: four characters a token, marked as an estimate."""

from collections.abc import Sequence
from dataclasses import replace

from thinktune.text.conversation import Unusable
from thinktune.text.templates import AFTER_REASONING, Rendered
from thinktune.text.tokens import TOO_LONG, Encoded, Encoder

CHARACTERS = 4


class Estimate(Encoder):
    """Counts as an Encoder does; the ids mean nothing."""

    def __init__(self) -> None:
        self.longest = 0

    def encode_all(self, examples: Sequence[Rendered]) -> list[Encoded]:
        """So many tokens as there would be, about."""
        return [self._estimated(rendered) for rendered in examples]

    def truncated(self, rendered: Rendered, encoded: Encoded, max_tokens: int) -> Rendered:
        """Cuts as many characters of the reasoning. Raises Unusable where that is no help."""
        body = rendered.reasoning.removesuffix(AFTER_REASONING)
        keep = len(body) - CHARACTERS * (len(encoded.ids) - max_tokens + 1)
        if not rendered.reasoning or keep <= 0:
            raise Unusable(TOO_LONG)
        return replace(rendered, reasoning=body[:keep].rstrip() + AFTER_REASONING)

    def _estimated(self, rendered: Rendered) -> Encoded:
        parts = [
            -(-len(text) // CHARACTERS)
            for text in (rendered.prompt_text(), rendered.reasoning, rendered.answer + rendered.end)
        ]
        return Encoded([0] * sum(parts), *parts)
