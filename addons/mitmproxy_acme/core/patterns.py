"""Patterns of names: the ``re:PATTERN`` entries of ``acme_domains``, matched in linear time.

This module knows regular expressions; it must not know who may have a certificate. A stranger chooses the names, so the
engine is RE2, which never backtracks: with Python's own, one ClientHello could block the event loop for hours.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import re2

from .errors import ConfigError

# Bytes for a compiled pattern and its cache of states. With the worst pattern of this size (10,000 instructions, all
# active at each character) the longest name takes 3 ms; with an ordinary one 5 µs.
_MOST_MEMORY = 2**18
_SHOWN = 200  # characters of a pattern that a message repeats
_SYNTAX = "https://github.com/google/re2/wiki/Syntax"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that a name must match from its first to its last character, in any case."""

    text: str
    _regexp: Any = field(repr=False, compare=False)  # re2 carries no types

    @classmethod
    def parse(cls, entry: str, option: str) -> Self:
        """Read ``re:PATTERN``. Raises ``ConfigError`` if RE2 cannot compile it, or not within 256 KiB."""
        text = entry.removeprefix("re:")
        shown = repr(entry if len(entry) <= _SHOWN else f"{entry[:_SHOWN]}…")
        if "{," in text:  # Python reads it as "from 0"; RE2 as four literal characters, which no name has
            raise ConfigError(f"{option}: {shown} has a repetition without a minimum; write {{0,5}} for {{,5}}")
        try:
            return cls(text, re2.compile(text, _options()))
        except (re2.error, UnicodeError) as error:
            raise ConfigError(
                f"{option}: {shown} is not a regular expression that RE2 can compile ({_reason(error)}); "
                f"write one without backreferences, lookaround and large repetitions ({_SYNTAX}), "
                "or list the names, such as *.example.com"
            ) from None

    def matches(self, name: str) -> bool:
        """Say whether the whole name matches. Its cost is linear in the length of the name."""
        return self._regexp.fullmatch(name) is not None


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _MOST_MEMORY
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False  # they would go to stderr, past the log
    return options


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(error)
