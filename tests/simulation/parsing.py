"""Parse each stored certificate once: the same record is read thousands of times in one run.

Knows what a certificate is read from; must not know who reads it. Real nodes read one now and then, and parse it each
time: 0.3 ms, a third of what a run costs (measured). Nothing depends on it, because certificates are frozen.
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from unittest import mock

from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName

_MOST = 1_000


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Remember what ``Certificate.from_record`` returned; what it raises is raised anew each time."""
    parse = Certificate.from_record

    @lru_cache(_MOST)
    def from_record(id: ServerName, record: bytes) -> Certificate:
        return parse(id, record)

    with mock.patch.object(Certificate, "from_record", from_record):
        yield
