"""How long a request may take, and how large its reply may be: the bounds themselves; test_network has sockets."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from mitmproxy_acme.ca.http import deadline
from mitmproxy_acme.ca.http.deadline import BoundedSocket, ReplyLimits, TooLarge, bounded, is_over, seconds_of, within


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The machine's clock, which stands still until it is moved."""
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


@pytest.mark.parametrize(("timeout", "seconds"), [(30.0, 30.0), ((3.0, 8.0), 11.0)])
def test_pair_is_both_times_together(timeout: deadline.Timeout, seconds: float) -> None:
    assert seconds_of(timeout) == seconds


def test_inner_deadline_never_extends_the_outer_one(now: SimpleNamespace) -> None:
    """And ends with its block."""
    assert not is_over()
    with within(10):
        with within(20):
            assert bounded(60.0) == (10.0, 10.0)
        with within(4):
            assert bounded((3.0, 8.0)) == (3.0, 4.0)
        assert bounded((3.0, 8.0)) == (3.0, 8.0)
        now.seconds += 9.9
        assert not is_over()
        now.seconds += 0.1
        assert is_over()
        assert bounded(60.0) == (0.001, 0.001)  # requests accepts no zero
    assert bounded(60.0) == (60.0, 60.0)


@pytest.mark.parametrize(
    ("end", "timeout", "after"),
    [
        (105.0, None, 5.0),
        (105.0, 30.0, 5.0),
        (105.0, 3.0, 3.0),
        (105.0, 5.0, 5.0),
        (math.inf, None, None),
        (math.inf, 30.0, 30.0),
    ],
)
def test_read_waits_no_longer_than_is_left(
    now: SimpleNamespace, end: float, timeout: float | None, after: float | None
) -> None:
    """A shorter timeout of the socket stays."""
    held: Any = SimpleNamespace(timeout=timeout)
    held.gettimeout = lambda: held.timeout
    held.settimeout = lambda seconds: setattr(held, "timeout", seconds)
    BoundedSocket._obey(held, end)
    assert held.timeout == after


@pytest.mark.parametrize("end", [100.0, 99.0])
def test_read_after_the_end_is_none(now: SimpleNamespace, end: float) -> None:
    with pytest.raises(TimeoutError, match="the reply did not end in time"):
        BoundedSocket._obey(SimpleNamespace(), end)  # type: ignore[arg-type]


def test_reply_has_so_many_bytes_and_not_one_more(now: SimpleNamespace) -> None:
    """And ten seconds from its first byte on, whatever comes later."""
    limits = ReplyLimits()
    assert (limits.has_begun, limits.end) == (False, math.inf)
    limits.count(1)
    assert (limits.has_begun, limits.end) == (True, 110.0)
    now.seconds += 5
    limits.count(524_287)
    assert limits.end == 110.0
    with pytest.raises(TooLarge):
        limits.count(1)
