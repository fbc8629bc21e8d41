"""Hook output: what a command prints, written to the log line by line.

This module knows lines, bounds, and how to recognize a private key in them; it must not know the command. However much
it prints, little is held and logged, and no line with a part of the key.
"""

import logging

from ...core.structured_logging import fields

logger = logging.getLogger(__name__)

_MOST_LINES = 200
_LONGEST_SHOWN = 500
# More of a line is held than is shown, so that a key at the end of the shown part is recognized.
_LONGEST_HELD = 8_192
# A line with so many consecutive characters of the key contains a part of it.
_KEY_PART = 16
_BEGIN, _END = "-----BEGIN ", "-----END "


class HookOutput:
    """The output of one command. ``prefix`` begins each log line, ``key_pem`` must not show.

    ``circumstances`` become fields of the structured log.
    """

    def __init__(self, prefix: str, key_pem: str, **circumstances: str) -> None:
        self._prefix = prefix
        self._fields = fields("deploy_output", **circumstances)
        body = "".join(line for line in key_pem.splitlines() if not line.startswith("-----"))
        self._parts = {body[at : at + _KEY_PART] for at in range(len(body) - _KEY_PART + 1)}
        self._held = b""
        self._lines = self._left_out = 0
        self._in_key = False

    def add(self, chunk: bytes) -> None:
        """Log what was printed next."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._take((self._held + end)[:_LONGEST_HELD])
            self._held = b""
        self._held = (self._held + rest)[:_LONGEST_HELD]

    def close(self) -> None:
        """Log the last line, which may have no line break, and how many lines were left out."""
        if self._held:
            self._take(self._held)
            self._held = b""
        if self._left_out:
            logger.info("%s: and %d more lines", self._prefix, self._left_out, extra=self._fields)
            self._left_out = 0

    def _take(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if not line:
            return
        self._lines += 1
        if self._lines > _MOST_LINES:
            self._left_out += 1
            return
        if self._is_secret(line):
            line = "(a line with a part of the private key is left out)"
        # Control characters must not reach a terminal.
        shown = "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line[:_LONGEST_SHOWN])
        end = "…" if len(line) > _LONGEST_SHOWN else ""
        logger.info("%s: %s%s", self._prefix, shown, end, extra=self._fields)

    def _is_secret(self, line: str) -> bool:
        if _BEGIN in line and "PRIVATE KEY-----" in line:
            self._in_key = True  # any key, in any encoding
        windows = (line[at : at + _KEY_PART] for at in range(len(line) - _KEY_PART + 1))
        secret = self._in_key or any(window in self._parts for window in windows)
        if _END in line:
            self._in_key = False
        return secret
