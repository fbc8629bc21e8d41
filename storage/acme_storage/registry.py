"""The registry of adapters: from a storage URL to its store.

This module knows the names of the adapters' modules and nothing about their content; an adapter's client library is
imported only when its URL is used.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from acme_storage.protocol import Reader, Storage

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
# module -> the extra that installs its client library
_EXTRAS = {"consul": "consul", "redis_store": "redis", "sql_postgresql": "sql", "sql_sqlite": "sql", "vault": "vault"}
# Adapters for servers, which may be on another machine, also have ``plain_text(url) -> str``.
_SERVERS = ("consul", "redis_store", "sql_postgresql", "vault")
# module -> the module with ``open_reader(url) -> Reader``, for servers in which other programs store certificates
_READERS = {"consul": "readers.consul", "redis_store": "readers.redis", "vault": "readers.vault"}

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def open_storage(url: str, *, default_folder: Path) -> Storage:
    """Return the store for ``url``: ``memory:``, ``file:/absolute/path`` or another scheme of the table above.

    ``file:`` without a path is the folder ``acme`` in ``default_folder``. Nothing is read, written or connected yet.
    Raises ``ValueError`` with one sentence that says what is wrong and what would be right, without any password of
    the URL.
    """
    scheme, module = _adapter(url, _MODULES)
    opener: Callable[[str, Path], Storage] = _imported(scheme, module, module).open_url
    return opener(url, default_folder)


def find_plain_text(url: str) -> str:
    """Return what to write instead of a URL whose store is on another machine and is reached without TLS, such as
    ``rediss://``; empty for any other URL. Raises ``ValueError`` as ``open_storage`` does.
    """
    scheme, module = _adapter(url, _MODULES)
    if module not in _SERVERS:
        return ""
    find: Callable[[str], str] = _imported(scheme, module, module).plain_text
    return find(url)


def open_reader(url: str) -> Reader:
    """Return a reader of what other programs store in the Redis, Consul or Vault of ``url``.

    The URLs are those of the stores. Nothing is connected yet. Raises ``ValueError`` as ``open_storage`` does.
    """
    scheme, module = _adapter(url, {scheme: module for scheme, module in _MODULES.items() if module in _READERS})
    opener: Callable[[str], Reader] = _imported(scheme, module, _READERS[module]).open_reader
    return opener(url)


def _adapter(url: str, modules: dict[str, str]) -> tuple[str, str]:
    scheme, colon, _ = url.partition(":")
    known = ", ".join(f"{name}:" for name in sorted(modules))
    # Text that is not a scheme is not shown: in "secret@host:80" it would be the secret.
    if not colon or not _SCHEME.fullmatch(scheme):
        folder = "; write file:/its/path for a folder" if "file" in modules else ""
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
            f"the storage URL {scheme}: needs a library that is missing ({error}); "
            f"run pip install 'mitmproxy-acme[{_EXTRAS[adapter]}]'"
        ) from error
