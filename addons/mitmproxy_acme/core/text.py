"""Untrusted text made safe for a log, a terminal, the storage and a reply.

This module knows characters and lengths; it must not know where a text comes from.
"""

_LONGEST = 500


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return ``text`` as one line of at most ``longest`` printable characters.

    Unprintable characters (line separators and terminal escapes among them) become question marks.
    """
    # Cut first: a text may have megabytes, most of it white space.
    line = " ".join(text[: 4 * longest].split())[:longest]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
