"""Makes a failing input small.

This module knows bytes and a question about them; it must not know targets.
"""

import time
from collections.abc import Callable


def minimize(data: bytes, fails: Callable[[bytes], bool], seconds: float = 20.0) -> bytes:
    """Return a short input for which ``fails`` is still true: parts are left out, then bytes made plain."""
    end = time.monotonic() + seconds
    size = max(1, len(data) // 2)
    while size and time.monotonic() < end:
        shorter = _without_parts(data, size, fails, end)
        if shorter == data:
            size //= 2
        data = shorter
    for at in range(len(data)):
        plain = data[:at] + b"a" + data[at + 1 :]
        if time.monotonic() < end and data[at] > 0x7E and fails(plain):
            data = plain
    return data


def _without_parts(data: bytes, size: int, fails: Callable[[bytes], bool], end: float) -> bytes:
    at = 0
    while at < len(data) and time.monotonic() < end:
        shorter = data[:at] + data[at + size :]
        if fails(shorter):
            data = shorter
        else:
            at += size
    return data
