"""Which failed orders are logged: all of the operator's own names, and some of those that strangers invent."""

import pytest

from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.ordering.failure_log import FailedAttempt, FailureLog
from tests.mitmproxy_acme.fakes import EPOCH, Clock


def fail(log: FailureLog, number: int, *, new: bool = True) -> None:
    subject = Subject((ServerName(f"n{number}.example.test"),))
    attempt = FailedAttempt("ca", "https://ca.test/directory", 0.0, "node", new=new)
    log.log(subject, ChallengeFailed("no"), attempt, Backoff(1, EPOCH + 60, "no"), EPOCH)


def logged(caplog: pytest.LogCaptureFixture) -> int:
    """How many failures were logged since the last call."""
    count = sum("n" in record.getMessage().partition(".example.test")[0] for record in caplog.records)
    lines = sum(".example.test" in record.getMessage() for record in caplog.records)
    caplog.clear()
    return min(count, lines)


def test_flood_of_new_names_is_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty in a minute, and then one line with their number; in the next minute twenty again."""
    clock = Clock()
    log = FailureLog(clock)
    for number in range(20):
        fail(log, number)
    assert logged(caplog) == 20
    for number in range(500):
        fail(log, number)
    assert logged(caplog) <= 1
    clock.advance(60)
    for number in range(25):
        fail(log, number)
    assert 20 <= logged(caplog) <= 21


def test_line_about_a_flood_follows_the_last_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Which is logged as any other, with how many it stands for."""
    clock = Clock()
    log = FailureLog(clock)
    for number in range(20):
        fail(log, number)
    caplog.clear()
    fail(log, 20)
    assert [record.getMessage() for record in caplog.records] == [
        "n20.example.test: no certificate: no; next attempt in 60 s (ca, 0.00 s, node node)",
        "1 order(s) of new names failed since this was last logged; that was the last one",
    ]
    caplog.clear()
    for number in range(21, 30):
        fail(log, number)
    assert caplog.records == []


def test_next_ca_is_named(caplog: pytest.LogCaptureFixture) -> None:
    attempt = FailedAttempt("ca", "https://ca.test/directory", 1.5, "node", following="other")
    log, subject = FailureLog(Clock()), Subject((ServerName("a.example.test"),))
    log.log(subject, ChallengeFailed("no"), attempt, Backoff(1, EPOCH + 600, "no"), EPOCH)
    (record,) = caplog.records
    assert record.getMessage() == "a.example.test: no; trying other, and ca again in 10 min (ca, 1.50 s, node node)"


def test_names_of_the_operator_are_logged_whatever_strangers_do(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them."""
    log = FailureLog(Clock())
    for number in range(100):
        fail(log, number)
    logged(caplog)
    for number in range(50):
        fail(log, number, new=False)
    assert logged(caplog) == 50
