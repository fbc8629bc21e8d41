"""acme.sh's folder: ``NAME/`` or, for ECDSA, ``NAME_ecc/``, with ``fullchain.cer``, ``NAME.key`` and ``NAME.conf``.

This module knows acme.sh's layout and nothing else. acme.sh's account keys stay where they are.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from .item import ImportItem, Rejected, from_files

# The file is a shell script; it is not executed.
_API = re.compile(r"^Le_API=(['\"]?)(\S+?)\1\s*$", re.MULTILINE)


def read(folder: Path) -> Iterator[ImportItem]:
    """Yield the items in acme.sh's folder (``--home``, or ``--cert-home``). Raises ``OSError``."""
    for home in sorted(folder.iterdir()):
        name = home.name.removesuffix("_ecc")
        configuration = home / f"{name}.conf"
        if not configuration.is_file():
            continue
        try:
            match = _API.search(configuration.read_text("utf-8", "replace"))
        except OSError as error:
            yield Rejected(name, f"{configuration} cannot be read: {error.strerror}")
            continue
        yield from_files(name, home / "fullchain.cer", home / f"{name}.key", match[2] if match else "")
