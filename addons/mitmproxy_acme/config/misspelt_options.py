"""Options that look like ours and are not: mitmproxy ignores them silently.

This module knows how to find the name that was meant; it must not know where the names were written.
"""

import difflib
from collections.abc import Iterable

from .options import NAMES


def find_misspelt(names: Iterable[str]) -> list[str]:
    """Return a sentence for each unknown name that starts like ours: mitmproxy ignores it silently."""
    sentences = []
    for name in names:
        if name.startswith("acme_") and name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            sentences.append(f"{name} is not an option of this addon and has no effect{hint}")
    return sentences
