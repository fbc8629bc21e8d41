"""Output: what a command prints, taken into the log a line at a time.

This module knows lines, bounds, and what a private key looks like in them; it must not know the command. However much
is printed, little is held and logged, and no line that has a part of the key.
"""

import logging

from ..core.structured_logging import fields

logger = logging.getLogger(__name__)

_MOST_LINES = 200
_LONGEST_SHOWN = 500
# Of a line so much is held: more than is shown, so that a key at the edge of what is shown is seen whole.
_LONGEST_HELD = 8_192
# So many characters in a row that the key has too are no coincidence.
_TELLING = 16
_BEGIN, _END = "-----BEGIN ", "-----END "


class HookOutput:
    """The output of one command; ``prefix`` says in each log line whose it is, ``key_pem`` what must not show.

    ``circumstances`` say the same to a machine.
    """

    def __init__(self, prefix: str, key_pem: str, **circumstances: str) -> None:
        self._prefix = prefix
        self._fields = fields("deploy_output", **circumstances)
        body = "".join(line for line in key_pem.splitlines() if not line.startswith("-----"))
        self._parts = {body[at : at + _TELLING] for at in range(len(body) - _TELLING + 1)}
        self._held = b""
        self._lines = self._left_out = 0
        self._in_key = False

    def add(self, chunk: bytes) -> None:
        """Take what was printed next."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._take((self._held + end)[:_LONGEST_HELD])
            self._held = b""
        self._held = (self._held + rest)[:_LONGEST_HELD]

    def close(self) -> None:
        """Take the last line, which may have no end, and say how many were too many."""
        if self._held:
            self._take(self._held)
            self._held = b""
        if self._left_out:
            logger.info("%s: and %d lines more", self._prefix, self._left_out, extra=self._fields)
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
        # It is somebody's output: it must not move a terminal's cursor.
        shown = "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line[:_LONGEST_SHOWN])
        end = "…" if len(line) > _LONGEST_SHOWN else ""
        logger.info("%s: %s%s", self._prefix, shown, end, extra=self._fields)

    def _is_secret(self, line: str) -> bool:
        if _BEGIN in line and "PRIVATE KEY-----" in line:
            self._in_key = True  # whichever key it is, and however it is encoded
        secret = self._in_key or any(line[at : at + _TELLING] in self._parts for at in range(len(line) - _TELLING + 1))
        if _END in line:
            self._in_key = False
        return secret
