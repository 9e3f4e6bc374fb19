"""The reference completions of held-out questions, as token ids.

Called by `perplexity` and `arms`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from thinktune.schema.errors import DataInvalid
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.generate.protocol import Completion
from thinktune.text.templates import LAYOUTS, Piece, Rendered
from thinktune.text.tokens import Encoder


def completions(
    task: EvaluateTask, rows: Sequence[Mapping[str, Any]], encoder: Encoder, *, adapter: bool
) -> list[Completion]:
    """The reference completions as they would be learned, less those that fill the model's whole
    context, which no engine takes. Raises DataInvalid where the tokenizer no longer gives the
    prompts that prep wrote."""
    end = LAYOUTS[task.model.chat_template].assistant[1]
    found = []
    for row in rows:
        prompt = tuple(Piece(piece["text"], piece["control"]) for piece in row["pieces"])
        rendered = Rendered(prompt, row["reasoning"], row["answer"], end, "")
        encoded = encoder.encode(rendered)
        ids = tuple(encoded.ids)
        if list(ids[: encoded.prompt_tokens]) != list(row["prompt_ids"]):
            fault = "its prompt has other tokens than prep's"
            raise DataInvalid(f"question {row['id']}", fault, "run prep again, in a new run")
        prompt_ids, rest = ids[: encoded.prompt_tokens], ids[encoded.prompt_tokens :]
        if len(ids) < task.model.context:
            found.append(Completion(row["id"], prompt_ids, rest, adapter))
    return found


def longest_completion(
    task: EvaluateTask, rows: Sequence[Mapping[str, Any]], encoder: Encoder
) -> int:
    """Tokens of the longest prompt with its completion."""
    each = completions(task, rows, encoder, adapter=False)
    return max((len(one.prompt_ids) + len(one.ids) for one in each), default=0)
