"""Secrets by reference: ``env:NAME`` and ``file:/path``, so that options need not contain them.

This module knows how to find a secret; it must not know its purpose, and never quotes one.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.fernet import Fernet

from ..core.errors import ConfigError
from ..core.operating_system import with_home

# user:SECRET@ or token=SECRET in a storage URL, unless it is a reference
_SECRET_IN_URL = re.compile(
    r"//[^/@?:]*:(?!env:|env%3A)[^/@?]+@|[?&](\w*password|token|secret_id)=(?!env:|env%3A)[^&]", re.IGNORECASE
)
# a variable, up to the character that ends it in a URL, an entry of acme_ca or a list; a URL may encode the colon
_VARIABLE = re.compile(r"env(?::|%3A)([^@/?&;,\s'\"]+)", re.IGNORECASE)
_BETWEEN_KEYS = re.compile(r"[,\s]+")
_HOW_TO_MAKE_A_KEY = (
    "make one with: "
    """python3 -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())\""""
)


def read_secret(option: str, reference: str, warnings: list[str]) -> str:
    """Return the secret that a reference points to. Raises ``ConfigError``, which never quotes a value.

    An empty secret is an error: an empty variable must not leave open what it should protect.
    """
    value = _resolved(option, reference, warnings)
    if reference and not value:
        raise ConfigError(f"{option}: {reference} is empty; put the secret there, or leave the option out")
    try:
        value.encode()
    except UnicodeEncodeError:  # an environment may hold any bytes
        raise ConfigError(f"{option}: the secret is not UTF-8; write text, or base64 if it is random") from None
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
            return Path(with_home(reference[5:])).read_text().strip()
        except (OSError, ValueError) as error:  # ValueError: the content is no text, or the path has a NUL
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(f"{option}: {reference[5:]} cannot be read: {reason}") from None
    if reference:
        warnings.append(
            f"{option} is written out, where logs and process lists can show it; use env:NAME or file:/path"
        )
    return reference


def find_variables(values: Iterable[object]) -> frozenset[str]:
    """Return the environment variables that option values refer to by ``env:NAME``, anywhere in them."""
    return frozenset(name for value in values for name in _VARIABLE.findall(str(value)))


def read_storage_url(url: str, warnings: list[str]) -> str:
    if _SECRET_IN_URL.search(url):
        warnings.append(
            "acme_storage: a secret is written out in its URL, where logs and process lists can show it; use env:NAME"
        )
    return url


def read_storage_keys(option: str, references: str, warnings: list[str]) -> tuple[str, ...]:
    """Return the Fernet keys, newest first; one reference may hold several.

    Blanks and commas separate references, so a path must have none; in a file, newlines separate keys too.
    """
    keys = list[str]()
    for reference in _BETWEEN_KEYS.split(references.strip()):
        keys += filter(None, _BETWEEN_KEYS.split(read_secret(option, reference, warnings)))
    if references and not keys:  # an empty variable must not mean that private keys are stored in clear text
        raise ConfigError(f"{option}: it is set but gives no key; {_HOW_TO_MAKE_A_KEY}, or leave the option out")
    for number, key in enumerate(keys, 1):
        try:
            Fernet(key)
        except ValueError:
            which = f"key {number} of {len(keys)}" if len(keys) > 1 else "the value"
            raise ConfigError(
                f"{option}: {which} is not a Fernet key (32 bytes in URL-safe base64); {_HOW_TO_MAKE_A_KEY}"
            ) from None
    return tuple(keys)
