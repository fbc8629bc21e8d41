"""Secrets by reference: ``env:NAME`` and ``file:/path``, so that no secret has to stand in an option.

This module knows how a secret is named; it must not know what it is for, and never quotes one.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.fernet import Fernet

from ..core.errors import ConfigError

# user:SECRET@ or token=SECRET in a storage URL, unless it is a reference
_SECRET_IN_URL = re.compile(
    r"//[^/@?:]*:(?!env:|env%3A)[^/@?]+@|[?&](\w*password|token|secret_id)=(?!env:|env%3A)[^&]", re.IGNORECASE
)
# a variable, up to what ends it in a URL, in an entry of acme_ca, or in a list; in a URL the colon may be encoded
_VARIABLE = re.compile(r"env(?::|%3A)([^@/?&;,\s'\"]+)", re.IGNORECASE)
_BETWEEN_KEYS = re.compile(r"[,\s]+")
_HOW_TO_MAKE_A_KEY = (
    "make one with: "
    """python3 -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())\""""
)


def read_secret(option: str, reference: str, warnings: list[str]) -> str:
    """Return what a reference points to. Raises ``ConfigError``, which never quotes a value.

    A reference to nothing is refused: what was to be secured must not be open because a variable is empty.
    """
    value = _resolved(option, reference, warnings)
    if reference and not value:
        raise ConfigError(f"{option}: {reference} is empty; put the secret there, or leave the option out")
    return value


def _resolved(option: str, reference: str, warnings: list[str]) -> str:
    if reference.startswith("env:"):
        try:
            return os.environ[reference[4:]].strip()
        except KeyError:
            raise ConfigError(
                f"{option}: the environment has no variable {reference[4:]}; set it, or use file:/path"
            ) from None
    if reference.startswith("file:"):
        try:
            return Path(reference[5:]).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(f"{option}: {reference[5:]} cannot be read: {reason}") from None
    if reference:
        warnings.append(
            f"{option} is written out, where logs and process lists can show it; use env:NAME or file:/path"
        )
    return reference


def find_variables(values: Iterable[object]) -> frozenset[str]:
    """Return the environment variables that the values of options refer to, wherever in them ``env:NAME`` is."""
    return frozenset(name for value in values for name in _VARIABLE.findall(str(value)))


def read_storage_url(url: str, warnings: list[str]) -> str:
    if _SECRET_IN_URL.search(url):
        warnings.append(
            "acme_storage: a secret is written out in its URL, where logs and process lists can show it; use env:NAME"
        )
    return url


def read_storage_keys(option: str, references: str, warnings: list[str]) -> tuple[str, ...]:
    """Return the Fernet keys, newest first; what one reference points to may hold several.

    Blanks and commas separate, so a path has none; a newline, for a file that has a key a line.
    """
    keys = list[str]()
    for reference in _BETWEEN_KEYS.split(references.strip()):
        keys += filter(None, _BETWEEN_KEYS.split(read_secret(option, reference, warnings)))
    if references and not keys:  # an empty variable must not mean that private keys are stored in clear
        raise ConfigError(f"{option}: it is set, and gives no key; {_HOW_TO_MAKE_A_KEY}, or leave the option out")
    for number, key in enumerate(keys, 1):
        try:
            Fernet(key)
        except ValueError:
            which = f"key {number} of {len(keys)}" if len(keys) > 1 else "this"
            raise ConfigError(
                f"{option}: {which} is not a Fernet key, which is 32 bytes in url-safe base64; {_HOW_TO_MAKE_A_KEY}"
            ) from None
    return tuple(keys)
