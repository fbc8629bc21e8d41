"""A slower pace: what nodes look at every few seconds, they look at every few hours, so that months take seconds.

Knows which constants say how often something is read; must not know what is simulated. Renewals, backoffs, leases and
the CA keep their own times: those are what is tested.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import mitmproxy_acme.lifecycle.client_usage as client_usage
import mitmproxy_acme.lifecycle.cluster_sync as cluster_sync
import mitmproxy_acme.lifecycle.renewal.housekeeper as housekeeper
import mitmproxy_acme.lifecycle.renewal.renewer as renewer
import mitmproxy_acme.lifecycle.revocation_retrier as revocation_retrier
import mitmproxy_acme.store.change_feed as change_feed

_INTERVALS = (
    (renewer, "_LONGEST_REST"),
    (renewer, "ASK_AGAIN_DEFAULT"),
    (cluster_sync, "READ_EVERY"),
    (client_usage, "_WRITE_EVERY"),
    (housekeeper, "_REST"),
    (revocation_retrier, "_REST"),
)
# These follow how often changes are read.
_LONGER = (
    (cluster_sync, "READ_ALL_EVERY"),
    (cluster_sync, "ANNOUNCED_FOR"),
    (change_feed, "ANNOUNCED_FOR"),
    (change_feed, "_CLOCKS_DIFFER"),
)
_MOST = 86_400.0  # seconds


@contextlib.contextmanager
def slowed(factor: float) -> Iterator[None]:
    """Make every interval between two reads so many times longer, and a day at most."""
    with contextlib.ExitStack() as patches:
        for module, name in _INTERVALS:
            seconds = min(getattr(module, name) * factor, max(getattr(module, name), _MOST))
            patches.enter_context(mock.patch.object(module, name, seconds))
        for module, name in _LONGER:
            patches.enter_context(mock.patch.object(module, name, getattr(module, name) * factor))
        yield
