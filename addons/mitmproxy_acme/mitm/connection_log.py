"""Limits the number and length of mitmproxy's log lines about connections, of which anyone can cause any number.

This module knows how mitmproxy logs that a client connected, disconnected or failed; it must not know why.
"""

import logging
import re
import time
from collections.abc import Callable

from ..core.log_throttle import LogThrottle
from ..core.structured_logging import fields
from ..core.token_bucket import TokenBucket

logger = logging.getLogger(__name__)

_LOGGER = "mitmproxy.proxy.server"
# The beginning of a line, how many such lines pass at once, and how many a second after that.
_KINDS = (
    (re.compile(r"Client (TLS|QUIC) handshake failed\."), 20, 0.2),
    (re.compile(r"Client closed connection before completing request headers|\S+:\d+: [A-Z]"), 20, 0.2),
    (re.compile(r"client (dis)?connect"), 500, 5.0),
)
_MAX_LENGTH = 300  # mitmproxy logs the bytes that it cannot parse


class ConnectionLog(logging.Filter):
    """Passes a limited number of such lines, and logs once a minute how many it left out. Use it from one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._buckets = [(pattern, TokenBucket(burst, rate, clock)) for pattern, burst, rate in _KINDS]
        self._left_out_log = LogThrottle(clock)

    def begin(self) -> None:
        logging.getLogger(_LOGGER).addFilter(self)

    def end(self) -> None:
        logging.getLogger(_LOGGER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.msg
        buckets = (bucket for pattern, bucket in self._buckets if isinstance(line, str) and pattern.match(line))
        if (bucket := next(buckets, None)) is None:
            return True
        if bucket.take():
            if len(line) > _MAX_LENGTH:
                record.msg = f"{line[:_MAX_LENGTH]}…"
            return True
        if count := self._left_out_log.count_event():
            logger.info(
                "left out %d of mitmproxy's lines about clients that connect, disconnect or fail",
                count,
                extra=fields("connection_lines_left_out", count=count),
            )
        return False
