"""How long a request to a CA may take, and how large its reply may be.

This module knows clocks, counts and sockets; it must not know HTTP or ACME. The timeouts of requests apply to each read
from the socket: a CA that sends one byte of a header each second would hold a thread for hours. So each request has a
deadline here, which every read from its socket obeys.
"""

import contextlib
import math
import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

# Seconds to connect and for the reply together; a pair has one number for each.
type Timeout = float | tuple[float, float]

# Bytes; a certificate with a hundred intermediates has a quarter of that. Headers and TLS overhead count too. We ask
# for no compression, and do not unpack compressed replies, which may be a thousand times as large.
LARGEST_REPLY = 512 * 1024

# Seconds from the first byte of a reply to its last. A CA works before it answers, not while it does.
_LONGEST_REPLY = 10.0

# The deadline of this thread's requests (``time.monotonic``), and the limits of the current reply.
_end: ContextVar[float] = ContextVar("end", default=math.inf)
current_reply: ContextVar["ReplyLimits"] = ContextVar("reply")


class TooLarge(Exception):
    """A reply is larger than any CA's real replies. Not an ``OSError``: urllib3 takes those for broken connections."""


class ReplyLimits:
    """How many bytes of one reply may still arrive, and until when."""

    def __init__(self) -> None:
        self.left = LARGEST_REPLY
        self.end = math.inf

    @property
    def has_begun(self) -> bool:
        return self.left < LARGEST_REPLY

    def count(self, received: int) -> None:
        """Count received bytes. Raises ``TooLarge``."""
        self.end = min(self.end, time.monotonic() + _LONGEST_REPLY)
        self.left -= received
        if self.left < 0:
            raise TooLarge


def seconds_of(timeout: Timeout) -> float:
    """Return how long a request may take altogether."""
    return sum(timeout) if isinstance(timeout, tuple) else timeout


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit every request of this thread to ``seconds`` from now."""
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def is_over() -> bool:
    """Say whether the deadline that ``within`` set for this thread has passed."""
    return time.monotonic() >= _end.get()


def bounded(timeout: Timeout) -> tuple[float, float]:
    """Return the timeouts to connect and to read, limited by the deadline; requests does not accept zero."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    left = max(_end.get() - time.monotonic(), 0.001)
    return min(connect, left), min(read, left)


class BoundedSocket(ssl.SSLSocket):
    """A connection whose reads obey the request's deadline, even if data arrives all the time."""

    def do_handshake(self, block: bool = False) -> None:
        self._obey(_end.get())
        super().do_handshake(block)

    def _obey(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply did not end in time")
        timeout = self.gettimeout()
        if left < math.inf and (timeout is None or timeout > left):
            self.settimeout(left)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        reply = current_reply.get()
        self._obey(min(_end.get(), reply.end))
        count = super().recv_into(*args, **kwargs)
        reply.count(count)
        return count
