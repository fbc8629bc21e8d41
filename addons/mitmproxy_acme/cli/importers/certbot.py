"""certbot's folder: ``live/NAME/`` holds symbolic links into ``archive/``, ``renewal/NAME.conf`` says which CA.

This module knows certbot's layout and nothing else. certbot's account keys stay where they are.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import SourceError
from .item import ImportItem, from_files

# The only line that is needed of the configobj file; no section but [renewalparams] has a name like it.
_SERVER = re.compile(r"^\s*server\s*=\s*(\S+)", re.MULTILINE)


def read(folder: Path) -> Iterator[ImportItem]:
    """Yield the items in certbot's folder, or in its ``live``. Raises ``SourceError``, ``OSError``."""
    live = folder / "live" if (folder / "live").is_dir() else folder
    for lineage in sorted(live.iterdir()):
        if lineage.is_dir() and (live.name == "live" or (lineage / "privkey.pem").exists()):
            ca = _server(live.parent / "renewal" / f"{lineage.name}.conf")
            yield from_files(lineage.name, lineage / "fullchain.pem", lineage / "privkey.pem", ca)


def _server(configuration: Path) -> str:
    try:
        match = _SERVER.search(configuration.read_text("utf-8", "replace"))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SourceError(f"{configuration} cannot be read: {error.strerror}") from None
    return match[1] if match else ""
