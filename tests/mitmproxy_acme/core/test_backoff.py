"""How long a failure is left alone."""

import json
from dataclasses import asdict

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


@pytest.mark.parametrize(
    ("fields", "is_one"),
    [
        ({"failures": 0}, True),
        ({"failures": 1_000_000}, True),
        ({"failures": 1_000_001}, False),
        ({"failures": -1}, False),
        ({"until": 0.0, "since": 0.0}, True),
        ({"until": 253_402_300_799.9}, True),
        ({"until": 253_402_300_800.0}, False),
        ({"since": -0.1}, False),
        ({"reason": "x" * 500}, True),
    ],
)
def test_record_at_its_bounds_is_read(fields: dict[str, object], is_one: bool) -> None:
    """Beyond them no date can show it, or no program wrote it."""
    record = {"failures": 3, "until": 12.5, "reason": "why", "since": 2.5} | fields
    found = Backoff.from_record(json.dumps(record).encode())
    assert (asdict(found) if found else None) == (record if is_one else None)


def test_reason_that_anybody_wrote_is_one_line_of_bounded_length() -> None:
    record = {"failures": 3, "until": 12.5, "reason": "a\nb\x1b" + "x" * 600}
    found = Backoff.from_record(json.dumps(record).encode())
    assert found is not None
    assert found.reason == "a?b?" + "x" * 496
    assert found.since == 0.0


def test_each_failure_is_counted_with_its_time_and_reason() -> None:
    """The draw never shortens a wait, and the CA's wish is never drawn."""
    waits = BackoffSchedule.parse("1m,10m")
    first = waits.next_backoff(None, "one", now=1_000, draw=0)
    second = waits.next_backoff(first, "two", now=2_000, draw=0.99)
    assert first == Backoff(1, 1_060, "one", 1_000)
    assert second == Backoff(2, 2_000 + 600 * 1.099, "two", 2_000)
    assert waits.next_backoff(None, "why", now=0, draw=0.99, at_least=66).until == 66
    assert waits.next_backoff(None, "why", now=0, draw=0.5, at_least=61).until == 63


@pytest.mark.parametrize(("left", "wait"), [(3_000.0, 2_000.0), (2_100.0, 1_050.0), (100.0, 60.0)])
def test_wish_of_the_ca_that_would_come_too_late_is_halved(left: float, wait: float) -> None:
    """Half of what is left of the certificate, and no less than a minute."""
    waits = BackoffSchedule.parse("1m")
    found = waits.next_backoff(None, "why", now=0, draw=0, at_least=2_000, served_until=left)
    assert found.until == wait


@pytest.mark.parametrize(("text", "days"), [("1m", 30.0), ("1d", 30.0), ("3d", 33.0), ("1m,60d", 660.0)])
def test_longest_wait_is_that_of_a_ca_with_its_draw(text: str, days: float) -> None:
    """Or as long as a failure is remembered."""
    assert BackoffSchedule.parse(text).longest == days * 86_400


def test_longest_wait_covers_the_longest_that_is_configured() -> None:
    """A backoff of weeks, with the draw on top, is no mistake of a clock."""
    assert BackoffSchedule.parse("1m,60d").longest >= 1.1 * 60 * 86_400
