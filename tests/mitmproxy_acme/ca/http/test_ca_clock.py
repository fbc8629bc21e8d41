"""How far our clock is ahead of the CA's, from the header Date; end_to_end compares it with that of real CAs."""

import email.utils

import pytest

from mitmproxy_acme.ca.http.ca_clock import CaClock
from tests.mitmproxy_acme.fakes import Clock

_TIME = 1_800_000_000.0
_DATE = email.utils.formatdate(_TIME, usegmt=True)


@pytest.fixture
def monotonic() -> Clock:
    return Clock(5.0)


@pytest.mark.parametrize("ahead", [0.0, 90.0, -3_600.0])
def test_positive_where_ours_is_ahead(monotonic: Clock, ahead: float) -> None:
    clock = CaClock(monotonic)
    clock.hear({"Date": _DATE})
    assert clock.ahead(_TIME + ahead) == ahead


def test_it_goes_on_from_the_last_reply(monotonic: Clock) -> None:
    """Though ours is set in between, and a later reply tells nothing."""
    clock = CaClock(monotonic)
    clock.hear({"Date": _DATE})
    monotonic.advance(600.0)
    clock.hear({})
    assert clock.ahead(_TIME + 600.0 + 86_400.0) == 86_400.0


def test_last_reply_counts(monotonic: Clock) -> None:
    clock = CaClock(monotonic)
    clock.hear({"Date": _DATE})
    monotonic.advance(1.0)
    clock.hear({"Date": email.utils.formatdate(_TIME + 7_200.0, usegmt=True)})
    assert clock.ahead(_TIME) == -7_200.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Date": ""},
        {"Date": "soon"},
        {"Date": "Fri, 32 Dec 2027 00:00:00 GMT"},
        {"Date": "1 Jan 99999999999999999999 0:0:0 GMT"},
        {"Date": _DATE + " " * 40},
        {"Date": "9" * 1_000_000},
    ],
)
def test_ca_that_does_not_tell_the_time(monotonic: Clock, headers: dict[str, str]) -> None:
    """It is no error: the rest of the reply may be right."""
    clock = CaClock(monotonic)
    clock.hear(headers)
    assert clock.ahead(_TIME) is None
