"""Reads the source of an import, as a person writes it.

This module knows the kinds of sources; it must not know the layout of any.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

from acme_storage import open_reader

from ...core.errors import SourceError
from ...core.operating_system import with_home
from . import acme_sh, caddy, certbot, kong
from .item import ImportItem

type _Reader = Callable[[Path, Collection[str]], Iterator[ImportItem]]

# kind -> its reader, and the default folder of the program
_FOLDERS: dict[str, tuple[_Reader, str]] = {
    "certbot": (lambda folder, _: certbot.read(folder), "/etc/letsencrypt"),
    "acme.sh": (lambda folder, _: acme_sh.read(folder), "~/.acme.sh"),
    "caddy": (caddy.read, "~/.local/share/caddy"),
}
_KONG = "kong+"


def read_source(source: str, known: Collection[str]) -> list[ImportItem]:
    """Return all items of ``source``; ``known`` directory URLs identify CAs.

    Raises ``SourceError``, and ``StorageError`` if a server does not answer; neither shows a password.
    """
    kind, colon, path = source.partition(":")
    if kind.lower().startswith(_KONG):
        items, where = _from_server(source[len(_KONG) :], known)
    elif colon and kind.lower() in _FOLDERS:
        items, where = _from_folder(kind.lower(), path, known)
    else:
        kinds = ", ".join(f"{name}:FOLDER" for name in _FOLDERS)
        raise SourceError(f"this kind of source is unknown; write {kinds}, or kong+URL with the URL of a storage")
    if not items:
        raise SourceError(f"no certificate found in {where}")
    return items


def _from_folder(kind: str, path: str, known: Collection[str]) -> tuple[list[ImportItem], str]:
    read, default = _FOLDERS[kind]
    folder = Path(with_home(path or default))
    try:
        return list(read(folder, known)), f"{folder} in the layout of {kind}"
    except OSError as error:
        raise SourceError(f"{error.filename or folder} cannot be read: {error.strerror}") from None


def _from_server(url: str, known: Collection[str]) -> tuple[list[ImportItem], str]:
    try:
        raw = open_reader(url)
    except ValueError as error:
        raise SourceError(str(error)) from None
    with closing(raw):
        return list(kong.read(raw, known)), f"{raw} in the layout of Kong or lua-resty-acme"
