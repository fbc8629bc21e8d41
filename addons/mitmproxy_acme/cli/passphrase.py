"""The passphrase of a backup: from a variable or a file, or asked on the terminal.

This module knows how it is given; it must not know what it protects.
"""

import getpass

from ..config.secret_references import read_secret
from ..core.errors import ConfigError
from . import terminal

# A thief of the file can guess for years, at 0.4 s and 128 MiB a guess.
_SHORTEST = 12
_HOW = "write --key env:NAME or --key file:/path"


def read_passphrase(reference: str, *, new: bool) -> str:
    """Return the passphrase; a ``new`` one is asked twice and must be long enough. Raises ``ConfigError``."""
    if reference and not reference.startswith(("env:", "file:")):
        # Not shown: it is probably the passphrase.
        raise ConfigError(f"--key: the passphrase itself would be visible in the list of processes; {_HOW}")
    passphrase = read_secret("--key", reference, []) if reference else _ask(new=new)
    if new and len(passphrase) < _SHORTEST:
        raise ConfigError(
            f"--key: the passphrase has {len(passphrase)} characters; use at least {_SHORTEST}, "
            "such as the output of: openssl rand -base64 24"
        )
    return passphrase


def _ask(*, new: bool) -> str:
    if not terminal.is_asked_here():
        raise ConfigError(f"--key: the passphrase of the backup is missing; {_HOW}")
    passphrase = getpass.getpass("passphrase of the backup: ")
    if new and getpass.getpass("again: ") != passphrase:
        raise ConfigError("the two passphrases differ; try again")
    return passphrase
