"""A trained adapter on its base, for whoever asks both in this process.

Called by the adapter to lm-evaluation-harness.
"""

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel


def put_on(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """The base with the adapter of that folder on it, for inference."""
    return PeftModel.from_pretrained(base, str(adapter)).eval()


def tokenizer_of(weights: Path) -> Any:
    """The released tokenizer of a model's folder, as transformers reads it."""
    return AutoTokenizer.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
