"""A CA's text, made fit for a log, a terminal, the storage and a reply.

This module knows characters and lengths; it must not know where a text comes from.
"""

_LONGEST = 500


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return ``text`` as one line of at most so many printable characters.

    What is not printable (line separators and terminal escapes among it) becomes a question mark.
    """
    # The cut first: a text may have megabytes, of which white space may be most.
    line = " ".join(text[: 4 * longest].split())[:longest]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
