"""From a storage URL to the store: the one table of all adapters.

This module knows the names of the adapters' modules and nothing of what is in them; an adapter's client library is
imported when its URL is used, and not before.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from acme_storage.protocol import Raw, Storage

# scheme -> module of this package with ``open_url(url, default_folder) -> Storage``, which does no I/O and raises
# ValueError with one sentence that shows no password.
_MODULES = {
    "consul": "consul",
    "consul+https": "consul",
    "file": "file",
    "memory": "memory",
    "postgres": "sql_postgresql",
    "postgresql": "sql_postgresql",
    "redis": "redis_store",
    "redis+cluster": "redis_store",
    "redis+sentinel": "redis_store",
    "rediss": "redis_store",
    "sqlite": "sql_sqlite",
    "unix": "redis_store",
    "vault": "vault",
    "vault+https": "vault",
}
# module -> the extra that brings its client library
_EXTRAS = {"consul": "consul", "redis_store": "redis", "sql_postgresql": "sql", "sql_sqlite": "sql", "vault": "vault"}
# Those that may be on another machine have ``plain_text(url) -> str`` too.
_SERVERS = ("consul", "redis_store", "sql_postgresql", "vault")
# module -> the one with ``open_raw(url) -> Raw``, for those servers that other programs keep certificates in
_RAW = {"consul": "raw_consul", "redis_store": "raw_redis", "vault": "raw_vault"}

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def open_storage(url: str, *, default_folder: Path) -> Storage:
    """Return the store that ``url`` names: ``memory:``, ``file:/absolute/path`` or one of the table above.

    ``file:`` without a path is the folder ``acme`` in ``default_folder``. Nothing is read, written or connected
    yet. Raises ``ValueError`` with one sentence that says what is wrong and what would be right; no password in
    the URL shows in it.
    """
    scheme, module = _adapter(url, _MODULES)
    opener: Callable[[str, Path], Storage] = _imported(scheme, module, module).open_url
    return opener(url, default_folder)


def find_plain_text(url: str) -> str:
    """Return what to write instead of a URL whose store is on another machine and is reached without TLS, such as
    ``rediss://``; nothing for any other. Raises ``ValueError`` as ``open_storage`` does.
    """
    scheme, module = _adapter(url, _MODULES)
    if module not in _SERVERS:
        return ""
    find: Callable[[str], str] = _imported(scheme, module, module).plain_text
    return find(url)


def open_raw(url: str) -> Raw:
    """Return what other programs keep in the Redis, Consul or Vault that ``url`` names, to be read.

    The URLs are those of the stores. Nothing is connected yet. Raises ``ValueError`` as ``open_storage`` does.
    """
    scheme, module = _adapter(url, {scheme: module for scheme, module in _MODULES.items() if module in _RAW})
    opener: Callable[[str], Raw] = _imported(scheme, module, _RAW[module]).open_raw
    return opener(url)


def _adapter(url: str, modules: dict[str, str]) -> tuple[str, str]:
    scheme, colon, _ = url.partition(":")
    known = ", ".join(f"{name}:" for name in sorted(modules))
    # Text that is no scheme is not shown: in "secret@host:80" it would be the secret.
    if not colon or not _SCHEME.fullmatch(scheme):
        folder = ", and a folder is file:/its/path" if "file" in modules else ""
        raise ValueError(f"the storage URL has no scheme; known are {known}{folder}")
    module = modules.get(scheme.lower())
    if module is None:
        raise ValueError(f"the storage URL's scheme {scheme}: is unknown; known are {known}")
    return scheme, module


def _imported(scheme: str, adapter: str, module: str) -> ModuleType:
    try:
        return import_module(f"acme_storage.{module}")
    except ImportError as error:
        if adapter not in _EXTRAS:
            raise
        raise ValueError(
            f"the storage URL {scheme}: needs a library that is missing ({error}): "
            f"pip install 'mitmproxy-acme[{_EXTRAS[adapter]}]'"
        ) from error
