"""A program in a terminal of its own: what a person sees there, and types.

Knows pseudo-terminals; must not know any program. Linux and macOS only.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])")


class Terminal:
    """A running program with 40 lines of 120 columns; ``close`` ends it."""

    def __init__(self, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        everything = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(environment or {})}
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=everything,
            start_new_session=True,
        )
        os.close(slave)
        self._shown = b""

    @property
    def text(self) -> str:
        """Everything that was shown so far, without escape sequences."""
        return _ESCAPES.sub("", self._shown.decode(errors="replace")).replace("\r\n", "\n")

    def wait_for(self, text: str, timeout: float = 30) -> None:
        """Read until ``text`` was shown. Raises ``AssertionError`` with what was shown instead."""
        for _ in self._read(timeout):
            if text in self.text:
                return
        raise AssertionError(f"{text!r} was not shown within {timeout} s, but:\n{self.text[-3_000:]}")

    def wait_for_end(self, timeout: float = 30) -> int:
        """Read until the program ends; return its exit code."""
        for _ in self._read(timeout):
            pass
        return self.process.wait(timeout)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def _read(self, timeout: float) -> Iterator[None]:
        """Yield once at first, and after each part that was shown, until the end of the program or the time."""
        deadline = time.monotonic() + timeout
        yield
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self._master], [], [], left)
            try:
                part = os.read(self._master, 65_536) if readable else b""
            except OSError:  # Linux's EIO: nothing has the other end open
                return
            if readable and not part:
                return
            self._shown += part
            yield

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        os.close(self._master)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
