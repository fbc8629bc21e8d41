"""How commands print, ask and show progress.

This module knows the standard streams; it must not know the texts. Folder names, keys, host names and the texts of CAs
and servers come from others: none of them may send control characters to the terminal.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Self

from tqdm import tqdm


def open_streams() -> None:
    """Replace a standard stream that the caller closed, as ``>&-`` does: Python has None for it."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def say(line: str) -> None:
    """Print a line of the result on standard output."""
    print(printable(line))


def say_text(text: str) -> None:
    """Print a text of several lines on standard output."""
    for line in text.splitlines():
        say(line)


def say_document(document: Any) -> None:
    """Print a JSON document on standard output, on one line and in ASCII."""
    print(json.dumps(document), flush=True)


def remark(line: str) -> None:
    """Print a line about the run on standard error."""
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return the text with a question mark for each control character."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def is_asked_here() -> bool:
    """Return whether a person can be asked: standard input and error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask on standard error; only y and yes confirm. Ctrl-C raises ``KeyboardInterrupt``, in an event loop too."""
    # asyncio handles Ctrl-C at the next await, which does not come while this waits for a person.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        signal.signal(signal.SIGINT, before)


def shows_progress() -> bool:
    """Say whether ``Progress`` shows anything."""
    return sys.stderr.isatty()


class Progress:
    """A progress bar on standard error if that is a terminal, else nothing."""

    def __init__(self, total: int | None, unit: str = "cert") -> None:
        """Without a ``total`` it only counts."""
        self.shown = shows_progress()
        self._bar = tqdm(total=total, unit=unit, file=sys.stderr, disable=not self.shown, dynamic_ncols=True)

    def step(self, counts: str) -> None:
        """Count one more; ``counts`` is shown beside the bar."""
        self._bar.set_postfix_str(printable(counts), refresh=False)
        self._bar.update()

    def remark(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self.shown:
            self._bar.write(printable(line), file=sys.stderr)
        else:
            remark(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
