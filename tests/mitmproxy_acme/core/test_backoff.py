"""How long a failure is left alone."""

import pytest

from mitmproxy_acme.core.backoff import Backoff, BackoffSchedule
from mitmproxy_acme.core.errors import ConfigError


def test_waits_grow_and_the_last_repeats() -> None:
    """The n-th failure in a row waits for the n-th duration, with up to a tenth more."""
    waits = BackoffSchedule.parse("1m,10m,100m,1d")
    previous: Backoff | None = None
    found = []
    for _ in range(6):
        previous = waits.next_backoff(previous, "why", now=0, draw=0)
        found.append(previous.until)
    assert found == [60, 600, 6_000, 86_400, 86_400, 86_400]
    assert waits.next_backoff(None, "why", now=0, draw=0.5).until == 63


def test_retry_after_is_never_shortened() -> None:
    """The CA's Retry-After is followed exactly if it is longer."""
    assert BackoffSchedule.parse("1m").next_backoff(None, "why", now=0, draw=0.9, at_least=3_600).until == 3_600
    assert BackoffSchedule.parse("1m").next_backoff(None, "why", now=0, draw=0, at_least=1).until == 60


def test_whole_ca_is_left_alone_for_ten_times_the_first_at_most() -> None:
    """An outage ends by itself, so the waits for a CA stay short."""
    assert BackoffSchedule.parse("1m,1d").for_ca().seconds == (60, 120, 240, 480, 600)


def test_wait_for_a_renewal_ends_in_time() -> None:
    """The wait is a quarter of the remaining lifetime, but at least a minute or the first wait; Retry-After overrides
    it.
    """
    waits, fourth = BackoffSchedule.parse("1m,10m,100m,1d"), Backoff(3, 0.0, "why")

    def wait(left: float, *, waits: BackoffSchedule = waits, at_least: float = 0.0) -> float:
        return (
            waits.next_backoff(fourth, "why", now=100, draw=0, at_least=at_least, served_until=100 + left).until - 100
        )

    assert [wait(left) for left in (30 * 86_400, 86_400, 3_600, 400, 30)] == [86_400, 21_600, 900, 100, 60]
    assert wait(0) == wait(-5) == 86_400  # nothing is served any more
    assert wait(30, waits=BackoffSchedule.parse("2s,1d")) == 7.5
    assert wait(4, waits=BackoffSchedule.parse("2s,1d")) == 2
    assert wait(400, waits=BackoffSchedule.parse("1d")) == 100
    assert wait(30, waits=BackoffSchedule.parse("1d,5s")) == 5  # no longer than what is configured either
    assert wait(3_600, at_least=3_000) == 3_000


def test_record_round_trip_and_junk() -> None:
    """A backoff survives a restart; a broken record does not lock a name for ever."""
    backoff = Backoff(3, 12.5, "dns: no such host")
    assert Backoff.from_record(backoff.to_record()) == backoff
    numbers = [("x", 1), ("Infinity", 1), ("-1", 1), ("1", "Infinity"), ("1", "NaN"), ("1", "1" + "0" * 400)]
    absurd = [f'{{"failures": {failures}, "until": {until}, "reason": ""}}'.encode() for failures, until in numbers]
    for junk in (b"", b"null", b"[]", b"{}", b"\xff", b"[" * 50_000, *absurd):
        assert Backoff.from_record(junk) is None


@pytest.mark.parametrize("text", ["", "soon", "1m,,2m", "0s", "1m;2m"])
def test_wrong_waits_are_explained(text: str) -> None:
    """A value that is no list of durations stops the start."""
    with pytest.raises(ConfigError, match=r"acme_fail_backoff: .*1m,10m,100m,1d"):
        BackoffSchedule.parse(text)


def test_longest_wait_covers_the_longest_that_is_configured() -> None:
    """A backoff of weeks, with the draw on top, is no mistake of a clock."""
    assert BackoffSchedule.parse("1m,60d").longest >= 1.1 * 60 * 86_400
