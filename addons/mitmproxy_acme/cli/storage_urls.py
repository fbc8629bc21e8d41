"""The storages that a command names: the one of the proxies, or another by its URL.

This module knows URLs as they are written; it must not know what is stored.
"""

from pathlib import Path
from urllib.parse import urlsplit

from acme_storage import Storage, find_plain_text

from ..config.secret_references import read_storage_url
from ..core.errors import ConfigError
from . import terminal
from .environment import open_url


def open_named(argument: str, url: str, confdir: Path) -> Storage:
    """Open the storage that ``argument`` names, and warn of a secret or a network that others can read.

    Raises ``ConfigError``.
    """
    warnings: list[str] = []
    read_storage_url(url, warnings)
    for warning in warnings:
        terminal.remark(warning.replace("acme_storage", argument))
    storage = open_url(argument, url, confdir)
    if instead := find_plain_text(url):
        terminal.remark(f"{argument}: the storage is on another machine and is reached in plain text; write {instead}")
    return storage


def without_secrets(url: str) -> str:
    """Return what of a storage URL may be shown: not its user, and no parameter, of which any may be a secret."""
    scheme, _, rest = url.partition(":")
    if not rest.startswith("//"):
        return url.partition("?")[0]
    split = urlsplit(url)
    return f"{scheme}://{split.netloc.rpartition('@')[2]}{split.path}"


def require_different(source: str, destination: str, confdir: Path) -> None:
    """Raise ``ConfigError`` if both URLs are the same storage."""
    if _normal(source, confdir) == _normal(destination, confdir):
        raise ConfigError("source and destination are the same storage; name another one with --from or --to")


def _normal(url: str, confdir: Path) -> str:
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "file":
        return f"file:{Path('/' + rest.lstrip('/')) if rest else (confdir / 'acme').absolute()}"
    return f"{scheme.lower()}:{rest.rstrip('/')}"
