"""Options that take one of a few values.

This module knows how a wrong one is told; it must not know what an option means.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from .options import OPTIONS


def choice(given: Mapping[str, Any], option: str) -> str:
    """Return what an option with choices is set to. Raises ``ConfigError`` for what is none of them."""
    choices = next(known.choices for known in OPTIONS if known.name == option)
    return require_known(option, given[option], choices)


def require_known(option: str, value: str, known: Sequence[str]) -> str:
    """Return ``value`` if it is one of those that ``option`` takes. Raises ``ConfigError`` that lists them."""
    if value not in known:
        raise ConfigError(f"{option}: {value!r} is not known; write one of {', '.join(known)}")
    return value
