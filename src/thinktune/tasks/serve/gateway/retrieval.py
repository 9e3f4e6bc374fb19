"""Passages of documents that are nearest to a question, by BM25 (Lù 2024, arXiv:2407.03618)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s

from thinktune.schema.errors import SpecInvalid
from thinktune.tasks.serve.gateway.chat_api import NAME_CHARS, Document

PASSAGE_CHARS = 900
"""Length at which a passage ends, at the next end of a line or sentence."""
SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".csv", ".json", ".jsonl", ".html", ".log", ".tex")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document."""

    name: str
    """Name of its document."""
    number: int
    """Its place among the document's passages, from 1."""
    text: str


class Index:
    """Passages that can be searched."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.passages: list[Passage] = []
        self._bm25 = bm25s.BM25()
        words: list[list[str]] = []
        for document in documents:
            name = _words(document.name)
            found = passages(document)
            self.passages += found
            words += [name + _words(passage.text) for passage in found]
        self._usable = any(words)
        if self._usable:
            self._bm25.index(words, show_progress=False)

    def nearest(self, question: str, most: int) -> list[tuple[float, Passage]]:
        """Passages that share words with the question, the nearest first, with their scores."""
        words = (
            [word for word in _words(question) if word in self._bm25.vocab_dict]
            if (self._usable)
            else []
        )
        if not words:
            return []
        k = min(most, len(self.passages))
        found, scores = self._bm25.retrieve([words], k=k, show_progress=False)
        ranked = zip(scores[0].tolist(), found[0].tolist(), strict=True)
        return [(score, self.passages[place]) for score, place in ranked if score > 0]


def passages(document: Document) -> list[Passage]:
    """A document in stretches of about `PASSAGE_CHARS` characters, cut between paragraphs, lines or
    sentences where there are any."""
    text, at = document.text.replace("\r\n", "\n"), 0
    found: list[Passage] = []
    while at < len(text):
        end = _end(text, at)
        if piece := text[at:end].strip():
            found.append(Passage(document.name, len(found) + 1, piece))
        at = end
    return found


def _end(text: str, at: int) -> int:
    limit = at + PASSAGE_CHARS
    if limit >= len(text):
        return len(text)
    for mark in ("\n\n", "\n", ". ", " "):
        found = text.rfind(mark, at + PASSAGE_CHARS // 2, limit)
        if found >= 0:
            return found + len(mark)
    return limit


def read_folder(folder: Path, most_bytes: int) -> list[Document]:
    """The text files of a folder and its folders, by name. Raises SpecInvalid for a folder without
    any, or with more than `most_bytes`."""
    place = f"--documents {folder}"
    if not folder.is_dir():
        raise SpecInvalid(place, "there is no such folder", "name a folder of text files")
    found, size = [], 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or _is_hidden(path, folder):
            continue
        size += path.stat().st_size
        if size > most_bytes:
            fault = f"its text files have more than {most_bytes:,} bytes"
            raise SpecInvalid(place, fault, "name a smaller folder")
        text = path.read_text(encoding="utf-8", errors="replace")
        name = path.relative_to(folder).as_posix()[-NAME_CHARS:]
        found.append(Document(name=name, text=text))
    if not found:
        fault = f"it has no text file ({', '.join(SUFFIXES)})"
        raise SpecInvalid(place, fault, "put text files into it, or name another folder")
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if len(word) > 1 or word.isdigit()]
