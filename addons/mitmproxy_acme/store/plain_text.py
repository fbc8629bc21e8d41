"""Transport: whether what is stored goes over a network where others can read and change it.

This module knows storage URLs as ``acme_storage`` understands them; it must not know what is stored.
"""

from acme_storage import find_plain_text


def plain_text_warning(url: str) -> str:
    """Return a sentence that names the option and what to write instead; nothing where all is well.

    Raises ``ValueError`` for a URL that cannot be opened.
    """
    instead = find_plain_text(url)
    if not instead:
        return ""
    return (
        f"acme_storage: the storage is on another machine and is reached in plain text: write {instead} so that nobody "
        "on the way reads or changes what is stored"
    )
