"""From what a person writes as the source of an import to what is found there.

This module knows the kinds of sources; it must not know the layout of any.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

from acme_storage import open_raw

from ...core.errors import SourceError
from . import acme_sh, caddy, certbot, kong
from .item import ImportItem

type _Reader = Callable[[Path, Collection[str]], Iterator[ImportItem]]

# kind -> its reader, and where its tool keeps its folder unless told otherwise
_FOLDERS: dict[str, tuple[_Reader, str]] = {
    "certbot": (lambda folder, _: certbot.read(folder), "/etc/letsencrypt"),
    "acme.sh": (lambda folder, _: acme_sh.read(folder), "~/.acme.sh"),
    "caddy": (caddy.read, "~/.local/share/caddy"),
}
_KONG = "kong+"


def read_source(source: str, known: Collection[str]) -> list[ImportItem]:
    """Return all that is found at ``source``; ``known`` are directory URLs of CAs, to recognise them by.

    Raises ``SourceError`` and, where a server cannot be asked, ``StorageError``; no password shows in either.
    """
    kind, colon, place = source.partition(":")
    if kind.lower().startswith(_KONG):
        items, where = _from_server(source[len(_KONG) :], known)
    elif colon and kind.lower() in _FOLDERS:
        items, where = _from_folder(kind.lower(), place, known)
    else:
        kinds = ", ".join(f"{name}:FOLDER" for name in _FOLDERS)
        raise SourceError(f"the source is none that is known; write {kinds}, or kong+URL with the URL of a storage")
    if not items:
        raise SourceError(f"there is no certificate in {where}")
    return items


def _from_folder(kind: str, place: str, known: Collection[str]) -> tuple[list[ImportItem], str]:
    read, usual = _FOLDERS[kind]
    folder = Path(place or usual).expanduser()
    try:
        return list(read(folder, known)), f"{folder}, as {kind} lays them out"
    except OSError as error:
        raise SourceError(f"{error.filename or folder} cannot be read: {error.strerror}") from None


def _from_server(url: str, known: Collection[str]) -> tuple[list[ImportItem], str]:
    try:
        raw = open_raw(url)
    except ValueError as error:
        raise SourceError(str(error)) from None
    with closing(raw):
        return list(kong.read(raw, known)), f"{raw}, as Kong and lua-resty-acme lay them out"
