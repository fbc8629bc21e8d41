"""Options that take one of a few values.

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
