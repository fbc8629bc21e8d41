"""Keeps mitmproxy's log lines about connections few and short: anyone can open, and fail, as many as they like.

This module knows how mitmproxy says that a client came, left or failed; it must not know why it did.
"""

import logging
import re
import time
from collections.abc import Callable

from ..core.log_throttle import LogThrottle
from ..core.structured_logging import fields
from .token_bucket import TokenBucket

logger = logging.getLogger(__name__)

_LOGGER = "mitmproxy.proxy.server"
# What a line begins with, how many are let through at once, and how many a second from then on.
_KINDS = (
    (re.compile(r"Client (TLS|QUIC) handshake failed\."), 20, 0.2),
    (re.compile(r"Client closed connection before completing request headers|\S+:\d+: [A-Z]"), 20, 0.2),
    (re.compile(r"client (dis)?connect"), 500, 5.0),
)
_LENGTH = 300  # mitmproxy writes out the bytes of what it cannot read


class ConnectionLog(logging.Filter):
    """Lets so many such lines through, and says once a minute how many there were more. Use it from one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._paces = [(beginning, TokenBucket(burst, rate, clock)) for beginning, burst, rate in _KINDS]
        self._left_out = LogThrottle(clock)

    def begin(self) -> None:
        logging.getLogger(_LOGGER).addFilter(self)

    def end(self) -> None:
        logging.getLogger(_LOGGER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.msg
        paces = (pace for beginning, pace in self._paces if isinstance(said, str) and beginning.match(said))
        if (pace := next(paces, None)) is None:
            return True
        if pace.take():
            if len(said) > _LENGTH:
                record.msg = f"{said[:_LENGTH]}…"
            return True
        if count := self._left_out.add():
            logger.info(
                "left out %d of mitmproxy's lines about clients that connect, disconnect or fail",
                count,
                extra=fields("connection_lines_left_out", count=count),
            )
        return False
