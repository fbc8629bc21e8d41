"""Has Python's decoder of A-labels raise the error that its callers know, for every name that a client may send.

This module knows that decoder (RFC 3492); it must not know where names come from. From Python 3.13 on it raises
``OverflowError`` for some labels, such as ``xn--mn999999999999999n``: it cannot count how far off they are. mitmproxy
expects a ``UnicodeError``, so a stranger's server name, ``:authority`` or DNS query ended in a traceback in the log.
"""

import encodings.punycode
from typing import Any

_decode: Any = encodings.punycode.punycode_decode


class PunycodeErrors:
    """Replaces the decoder by one with the right error."""

    def install(self) -> None:
        vars(encodings.punycode)["punycode_decode"] = _decode_or_refuse

    def uninstall(self) -> None:
        vars(encodings.punycode)["punycode_decode"] = _decode


def _decode_or_refuse(text: bytes, errors: str) -> Any:
    """Decode a label. Raises ``UnicodeError``."""
    try:
        return _decode(text, errors)
    except OverflowError:
        raise UnicodeError("a label encodes a character that does not exist") from None
