"""``acme_keep_expired``: how long an expired certificate stays stored.

This module knows the option; it must not know what is removed, or when.
"""

from ..core.errors import ConfigError
from ..core.renewal import DAY, parse_duration

_LEAST = DAY


def parse_keep_expired(text: str) -> float | None:
    """Read a duration such as ``30d``, or ``off``: return seconds, or None for ever. Raises ``ConfigError``."""
    text = text.strip()
    if text == "off":
        return None
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ConfigError(
            f"acme_keep_expired: {text!r} is not a time to keep; write a duration such as 30d, or off to keep for ever"
        ) from None
    if seconds < _LEAST:
        raise ConfigError(f"acme_keep_expired: {text} is too short; write at least 1d, or off to keep for ever")
    return seconds
