"""Times and bounds that the documentation promises are those of the code."""

from pathlib import Path

import pytest

from mitmproxy_acme.ca import delivery
from mitmproxy_acme.core import backoff, renewal
from mitmproxy_acme.core.rate_limits import Limit
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle import event_recorder, predecessor
from mitmproxy_acme.lifecycle.ordering import (
    admission,
    ask,
    exhausted_limits,
    failure_log,
    order_gate,
    order_queue,
)
from mitmproxy_acme.lifecycle.ordering.clock_check import _Validity
from mitmproxy_acme.lifecycle.renewal import housekeeper
from mitmproxy_acme.store import change_feed, event_log, lease, new_names

ROOT = Path(__file__).parents[2]
_MINUTE, _HOUR = 60.0, 3_600.0
_LIMITS, _HOW, _STORES = (
    "docs/explanation/limits.md",
    "docs/explanation/how-it-works.md",
    "docs/reference/storage-urls.md",
)


@pytest.mark.parametrize(
    ("page", "words", "promised", "actual"),
    [
        (_LIMITS, "each process | 2,000 an hour |", Limit(2_000, _HOUR), admission._NEW_NAMES),
        (_LIMITS, "held at once, each process | 1,000 |", 1_000, order_gate._MOST_ORDERS),
        (_LIMITS, "failure is stored, each node | 1,000,", 1_000, new_names._MOST),
        (_LIMITS, "20 a minute, then one with their", (20, _MINUTE), (failure_log._FIRST, failure_log._WINDOW)),
        (_LIMITS, "six are ordered at a time", 6, order_queue._AT_ONCE),
        (_LIMITS, "takes longer than a second makes room", 1.0, order_queue._COUNTED_FOR),
        (_LIMITS, "is used up is logged once an hour", _HOUR, exhausted_limits._LOG_EVERY),
        (_HOW, "does not begin in more than five minutes", 5 * _MINUTE, delivery.CLOCK_SKEW),
        (_HOW, "42 days ahead for certificates of 90 days,", 42 * DAY, _Validity(-_HOUR, 90 * DAY).most_ahead),
        (_HOW, "48 hours for those of 160)", 48 * _HOUR, _Validity(-_HOUR, 160 * _HOUR).most_ahead),
        (_HOW, "(65 minutes at CAs that date back by an hour,", 65 * _MINUTE, _Validity(-_HOUR, 90 * DAY).most_behind),
        (_HOW, "less than an hour left", _HOUR, delivery._LEAST_LEFT),
        (_HOW, "Once a minute one node,", _MINUTE, housekeeper._REST),
        (_HOW, "A pass removes at most 100 certificates", 100, housekeeper._MOST_REMOVED),
        (_HOW, "at most 500 certificates", 500, housekeeper._MOST_WALKED),
        (_HOW, "once a month, lists those", 30 * DAY, housekeeper._WALK_EVERY),
        (_HOW, "backoffs 30 days after", 30 * DAY, backoff.BACKOFF_MEMORY),
        (_HOW, "and again afterwards, for a day", DAY, change_feed._DELETED_FOR),
        (_STORES, "lasts ten seconds and is extended", 10.0, lease.LEASE_TTL),
        (_STORES, "The other nodes read it every three seconds", 3.0, change_feed.READ_EVERY),
        (_STORES, "the last two hundred events", 200, event_log._KEPT),
        (_STORES, "they end after 30 days", 30 * DAY, event_log._KEPT_FOR),
        ("docs/explanation/fleet.md", "is looked at every six hours", 6 * _HOUR, renewal.ASK_AGAIN_DEFAULT),
        ("docs/reference/options.md", "A yes is remembered for 5 minutes", 5 * _MINUTE, ask._REMEMBER_YES),
        ("docs/reference/options.md", "5 minutes, a no for one", _MINUTE, ask._REMEMBER_NO),
        ("docs/how-to/move-storage.md", "For 30 seconds it orders nothing", 30.0, predecessor.ASKED_FOR),
        ("SECURITY.md", "20 events of failures at once and six a minute", (20, 6 / 60), event_recorder._FAILURES),
    ],
)
def test_number_is_the_one_that_is_promised(page: str, words: str, promised: object, actual: object) -> None:
    """And the page still says it."""
    assert words in (ROOT / page).read_text()
    assert actual == promised


def test_lease_is_extended_in_time() -> None:
    """Three times before it ends, so that two calls to the storage may fail."""
    assert lease.LEASE_TTL >= 4 * lease.EXTEND_EVERY
