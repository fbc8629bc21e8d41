"""From a storage URL to the store: the one table of all adapters.

This module knows the names of the adapters' modules and nothing of what is in them; an adapter's client library is
imported when its URL is used, and not before.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from acme_storage.protocol import Storage

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

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def open_storage(url: str, *, default_folder: Path) -> Storage:
    """Return the store that ``url`` names: ``memory:``, ``file:/absolute/path`` or one of the table above.

    ``file:`` without a path is the folder ``acme`` in ``default_folder``. Nothing is read, written or connected
    yet. Raises ``ValueError`` with one sentence that says what is wrong and what would be right; no password in
    the URL shows in it.
    """
    scheme, colon, _ = url.partition(":")
    known = ", ".join(f"{name}:" for name in sorted(_MODULES))
    # Text that is no scheme is not shown: in "secret@host:80" it would be the secret.
    if not colon or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"the storage URL has no scheme; known are {known}, and a folder is file:/its/path")
    module = _MODULES.get(scheme.lower())
    if module is None:
        raise ValueError(f"the storage URL's scheme {scheme}: is unknown; known are {known}")
    return _opener(scheme, module)(url, default_folder)


def _opener(scheme: str, module: str) -> Callable[[str, Path], Storage]:
    try:
        opener: Callable[[str, Path], Storage] = import_module(f"acme_storage.{module}").open_url
    except ImportError as error:
        if module not in _EXTRAS:
            raise
        raise ValueError(
            f"the storage URL {scheme}: needs a library that is missing ({error}): "
            f"pip install 'mitmproxy-acme[{_EXTRAS[module]}]'"
        ) from error
    return opener
