"""Terminal: the one way in which commands print, ask and show progress.

This module knows streams; it must not know what is said. Names of folders, keys and hosts are whatever somebody wrote,
and CAs and servers send texts too: none of it may move a terminal's cursor.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Self

from tqdm import tqdm


def open_streams() -> None:
    """Have both streams, though whoever started the process closed one, as ``>&-`` does: Python has None then."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def say(line: str) -> None:
    """Print a line of the answer on standard output."""
    print(printable(line))


def say_document(document: Any) -> None:
    """Print a JSON document on standard output, on one line and in ASCII."""
    print(json.dumps(document), flush=True)


def remark(line: str) -> None:
    """Print a line beside the answer, on standard error."""
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return the text with a question mark for each letter that a terminal would obey rather than show."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def is_asked_here() -> bool:
    """Say whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask on standard error; only yes is yes. Ctrl-C raises ``KeyboardInterrupt``, from within an event loop too."""
    # asyncio's own way with Ctrl-C is to cancel at the next await, and none comes while a person is waited for.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """A bar on standard error, where that is a terminal; else nothing."""

    def __init__(self, total: int) -> None:
        self.shown = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="cert", file=sys.stderr, disable=not self.shown, dynamic_ncols=True)

    def step(self, counts: str) -> None:
        """One more is done; ``counts`` stands beside the bar."""
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
