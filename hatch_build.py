"""README.md as a package index shows it: away from the repository, where a relative link leads nowhere.

hatchling calls this when it builds the wheel and the sdist. With ``Source`` in ``[project.urls]`` the links lead into
the repository there; without it each becomes its text and the path of the file in the source distribution.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"\[([^]]+)\]\((?!#|[a-z]+:)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Sets ``readme``, which pyproject.toml lists as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the text to the project's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source", "")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_relative_links(text, source)}


def without_relative_links(markdown: str, source: str) -> str:
    """Return the text with absolute links into the repository at ``source``, or with none where that is empty."""
    if source:
        return _RELATIVE.sub(rf"[\1]({source.rstrip('/')}/blob/HEAD/\2)", markdown)
    return _RELATIVE.sub(lambda link: link[1] if link[1] == f"`{link[2]}`" else f"{link[1]} (`{link[2]}`)", markdown)
