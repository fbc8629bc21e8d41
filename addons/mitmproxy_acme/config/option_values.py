"""What several options have in common: one of a few values, a URL, a number.

This module knows what is said about a wrong value; it must not know what an option means.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from .options import OPTIONS


def choice(given: Mapping[str, Any], option: str) -> str:
    """Return the value of an option with choices. Raises ``ConfigError`` for any other value."""
    choices = next(known.choices for known in OPTIONS if known.name == option)
    return require_known(option, given[option], choices)


def require_known(option: str, value: str, known: Sequence[str]) -> str:
    """Return ``value`` if ``option`` accepts it. Raises ``ConfigError``, which lists the accepted values."""
    if value not in known:
        raise ConfigError(f"{option}: {value!r} is not known; write one of {', '.join(known)}")
    return value


def http_url(option: str, text: str) -> str:
    """Return ``text`` if it is empty or a URL. Raises ``ConfigError``, never quoting it: a path is often a secret."""
    if text and not text.startswith(("http://", "https://")):
        raise ConfigError(f"{option}: the value is not a URL; write one that begins with http:// or https://")
    return text


def positive(given: Mapping[str, Any], option: str) -> int:
    """Return the value of an option that counts something. Raises ``ConfigError`` below 1."""
    value: int = given[option]
    if value < 1:
        raise ConfigError(f"{option}: {value} is too small; write a whole number of at least 1")
    return value
