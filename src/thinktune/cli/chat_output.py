"""An answer on the terminal while it is written. Nothing in it reaches the terminal that it would
obey."""

import sys
from collections.abc import Iterable

import click

from thinktune.launch.chat_client import Piece
from thinktune.text.visible import printable

SHOWN_PASSAGE = 60


class Screen:
    """Where answers are shown: in color and folded on a terminal, content alone in a pipe."""

    def __init__(self, *, show_thinking: bool) -> None:
        self._shows_thinking = show_thinking
        self._terminal = sys.stdout.isatty()

    def note(self, text: str) -> None:
        """Something that is no part of an answer."""
        click.echo(click.style(clean(text), dim=True), err=True)

    def show(self, pieces: Iterable[Piece]) -> str:
        """Shows an answer; gives its content."""
        content, thought, counted = "", "", 0
        last = Piece()
        for piece in pieces:
            if piece.reasoning:
                thought += piece.reasoning
                counted += 1
                self._thinks(piece.reasoning, counted)
            if piece.content:
                if thought and not content:
                    self._stops_thinking()
                content += piece.content
                self._write(clean(piece.content))
            if piece.finish_reason is not None:
                last = piece
        if thought and not content:
            self._stops_thinking()
        self._write("\n")
        self._close(last, bool(thought))
        return content

    def _thinks(self, text: str, counted: int) -> None:
        if self._shows_thinking:
            click.echo(click.style(clean(text), dim=True), nl=False, err=not self._terminal)
        elif self._terminal:
            click.echo(click.style(f"\rthinking … {counted}", dim=True), nl=False)

    def _stops_thinking(self) -> None:
        if self._shows_thinking:
            click.echo("\n", err=not self._terminal)
        elif self._terminal:
            click.echo("\r\x1b[K", nl=False)

    def _close(self, last: Piece, thought: bool) -> None:
        notes = []
        if thought and (tokens := last.facts.get("reasoning_tokens")):
            notes.append(f"thought for {int(tokens)} tokens")
        if (found := last.facts.get("final_answer")) is not None:
            notes.append(f"final answer: {found}")
        if last.finish_reason == "length":
            notes.append("cut off at the token limit")
        if notes and self._terminal:
            self.note("▸ " + " · ".join(notes))
        if self._terminal:
            for number, passage in enumerate(last.facts.get("passages", ()), 1):
                place = f"{passage['name']}, passage {passage['number']}"
                beginning = printable(str(passage["text"]))[:SHOWN_PASSAGE]
                self.note(f"  [{number}] {place}: {beginning}…")

    def _write(self, text: str) -> None:
        click.echo(text, nl=False)


def clean(text: str) -> str:
    """The text with line breaks, and without anything else that does not print: an escape sequence
    would move the cursor, or write into the clipboard."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))
