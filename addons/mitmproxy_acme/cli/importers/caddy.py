"""Caddy's folder: ``certificates/ISSUER/NAME/NAME.crt``, ``.key`` and ``.json``, the layout of CertMagic.

ISSUER is the host and path of the CA's directory URL with hyphens for slashes, NAME has ``wildcard_`` for ``*``.

This module knows CertMagic's layout and nothing else. Its account keys stay where they are.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from .item import ImportItem, Rejected, from_files

_OWN_CA = "local"


def read(folder: Path, known: Collection[str]) -> Iterator[ImportItem]:
    """Yield the items in Caddy's data folder; ``known`` directory URLs identify issuers. Raises ``OSError``."""
    certificates = folder / "certificates" if (folder / "certificates").is_dir() else folder
    for issuer in sorted(filter(Path.is_dir, certificates.iterdir())):
        for site in sorted(filter(Path.is_dir, issuer.iterdir())):
            name = site.name.replace("wildcard_", "*")
            if issuer.name == _OWN_CA:
                yield Rejected(name, "Caddy's own CA issued it; only Caddy can renew it", foreign=True)
                continue
            chain, key, about = (site / f"{site.name}.{kind}" for kind in ("crt", "key", "json"))
            ca = _directory(about) or next((url for url in known if _issuer(url) == issuer.name), "")
            yield from_files(name, chain, key, ca)


def _directory(about: Path) -> str:
    """Return the directory URL of the CA that issued the certificate, empty if unknown."""
    try:
        ca = json.loads(about.read_bytes())["issuer_data"]["ca"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
    return ca if isinstance(ca, str) else ""


def _issuer(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.replace("/", "-").strip("-")
    text = f"{parts.netloc}-{path}" if path else parts.netloc
    return re.sub(r"[^\w@.-]", "", text.lower().replace(":", "-"))
