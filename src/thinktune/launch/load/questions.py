"""Questions that somebody has in a file, for a load test."""

import json
from pathlib import Path

from thinktune.schema.errors import DataInvalid


def read_questions(path: Path) -> tuple[str, ...]:
    """The questions of a file: of a .jsonl file, `question` of each row; of another, each line that
    is not empty. Raises DataInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        fault, remedy = "it cannot be read as text", "name a text file in UTF-8"
        raise DataInvalid(str(path), fault, remedy) from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix == ".jsonl":
        found = tuple(_question(f"{path}:{number}", line) for number, line in lines)
    else:
        found = tuple(line.strip() for _, line in lines)
    if not found:
        raise DataInvalid(str(path), "it has no question", "write one on each line")
    return found


def _question(place: str, line: str) -> str:
    try:
        question = json.loads(line)["question"]
    except (ValueError, LookupError, TypeError):
        question = None
    if not isinstance(question, str) or not question.strip():
        remedy = 'write {"question": "…"} on each line'
        raise DataInvalid(place, "it is no row with a question", remedy)
    return question
