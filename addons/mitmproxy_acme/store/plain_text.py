"""Plain text: whether stored data crosses a network where others can read and change it.

This module knows storage URLs as ``acme_storage`` does; it must not know what is stored.
"""

from acme_storage import find_plain_text


def plain_text_warning(url: str) -> str:
    """Return a sentence that names the option and what to write instead; empty if the connection is safe.

    Raises ``ValueError`` for a URL that cannot be opened.
    """
    instead = find_plain_text(url)
    if not instead:
        return ""
    return (
        f"acme_storage: the storage is on another machine and is reached in plain text; write {instead}, so that "
        "others on the network cannot read or change the records"
    )
