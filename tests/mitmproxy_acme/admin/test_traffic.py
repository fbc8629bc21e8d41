"""The handshakes of the last hour, by minute: the differences of counters that only grow."""

from mitmproxy_acme.admin.metrics import Metrics
from mitmproxy_acme.admin.traffic import TrafficHistory
from tests.mitmproxy_acme.fakes import EPOCH, Clock


def test_each_minute_has_its_own_handshakes(clock: Clock) -> None:
    """What was counted before belongs to none; the last column grows."""
    metrics = Metrics()
    metrics.handshake("cached")
    traffic = TrafficHistory(metrics, clock)
    metrics.handshake("obtained")
    clock.advance(60)
    traffic.sample()
    metrics.handshake("obtained")
    metrics.handshake("refused")

    document = traffic.document()

    assert document["begin_at"] == ["2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z"]
    assert document["handshakes"] == {
        "cached": [0, 0],
        "obtained": [1, 1],
        "fallback": [0, 0],
        "refused": [0, 1],
        "not_ours": [0, 0],
    }
    metrics.handshake("refused")
    assert traffic.document()["handshakes"]["refused"] == [0, 2]


def test_holds_are_counted_by_their_length(clock: Clock) -> None:
    """Each once, in the shortest class that has room for it; none of more than an hour ago."""
    metrics = Metrics()
    metrics.held(0.3)
    traffic = TrafficHistory(metrics, clock)
    for seconds in (0.01, 0.3, 0.4, 99):
        metrics.held(seconds)
    counts = {hold["up_to_seconds"]: hold["count"] for hold in traffic.document()["holds"]}
    assert {wait: count for wait, count in counts.items() if count} == {0.05: 1, 0.5: 2, None: 1}
    assert list(counts)[:2] == [0.05, 0.1]
    for _ in range(60):
        clock.advance(60)
        traffic.sample()
    assert sum(hold["count"] for hold in traffic.document()["holds"]) == 0


def test_only_the_last_hour_is_kept(clock: Clock) -> None:
    """Sixty minutes, the oldest first."""
    traffic = TrafficHistory(Metrics(), clock)
    for _ in range(500):
        clock.advance(60)
        traffic.sample()
    begun = traffic.document()["begin_at"]
    assert len(begun) == 60
    assert begun == sorted(begun)
    assert clock() == EPOCH + 500 * 60
