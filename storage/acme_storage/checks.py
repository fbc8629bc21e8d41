"""What every adapter checks before it uses its store: the contract's rules for arguments.

This module knows no adapter, and not what any key means.
"""

import math
import re
from urllib.parse import parse_qsl

MAX_KEY = 512
MAX_VALUE = 64 * 1024

# The lookahead refuses the parts "." and "..".
_PART = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9._~:*@=+-]+"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")


def is_key(key: str) -> bool:
    """Say whether ``key`` is a key of the contract."""
    return len(key) <= MAX_KEY and _KEY.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Raise ``ValueError`` unless ``key`` is a key of the contract."""
    if not is_key(key):
        raise ValueError(
            f"not a storage key: {key[:100]!r}: it must have 1 to {MAX_KEY} characters of [A-Za-z0-9._~:*@=+-] "
            "in parts between single slashes, and no part may be . or .."
        )


def check_prefix(prefix: str) -> None:
    """Raise ``ValueError`` unless ``prefix`` is empty, or a key with a slash behind it."""
    if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
        raise ValueError(
            f"not a key prefix: {prefix[:100]!r}: it must be empty, or a storage key with a slash behind it"
        )


def check_value(value: bytes, ttl: float | None) -> None:
    """Raise ``ValueError`` unless the value is short enough and ``ttl``, if any, is finite and above zero."""
    if len(value) > MAX_VALUE:
        # Never the value itself: it may be a private key.
        raise ValueError(f"a value of {len(value)} bytes is too long to store: at most {MAX_VALUE} bytes are allowed")
    if ttl is not None and not 0 < ttl < math.inf:
        raise ValueError(f"not a ttl: {ttl!r}: it must be in seconds, above zero and finite")


def check_limit(limit: int | None) -> None:
    """Raise ``ValueError`` if the limit is negative."""
    if limit is not None and limit < 0:
        raise ValueError(f"not a limit: {limit!r}: it must be zero or more, or None for no limit")


def refuse_parameters(url: str) -> None:
    """Raise ``ValueError`` if a storage URL has parameters, for schemes that take none.

    Only the names of the parameters are shown: a value may be a password.
    """
    scheme, _, rest = url.partition(":")
    if "#" in rest:
        raise ValueError(f"the storage URL {scheme}: must not contain a #; in a path write %23")
    if "?" in rest:
        names = [name for name, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True)]
        raise ValueError(
            f"the storage URL {scheme}: takes no parameters, but has {', '.join(names) or 'a ?'}; in a path write %3F"
        )
