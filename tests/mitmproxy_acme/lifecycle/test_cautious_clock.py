"""The time by which something is removed for good: never ahead of a node that is up, and not ours before an hour."""

import logging
from dataclasses import dataclass, field

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.cautious_clock import CautiousClock
from mitmproxy_acme.store.nodes import Node, Nodes
from tests.mitmproxy_acme.fakes import EPOCH, Counting

HOUR, YEAR = 3_600.0, 365 * DAY


@dataclass
class Cluster:
    """One storage, whose own time is right, and our node with its two clocks."""

    threads: ThreadPools
    uptime: float = 7.0
    ahead: float = 0.0
    storage: Counting = field(init=False)
    clock: CautiousClock = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Counting(Memory(self.true_time))
        self.clock = CautiousClock(
            Nodes(self.storage), "us", self.threads, lambda: self.true_time() + self.ahead, lambda: self.uptime
        )

    def true_time(self) -> float:
        return EPOCH + self.uptime

    def heartbeat(self, id: str, ahead: float = 0.0) -> None:
        node = Node(id, "data", "1.0", "host", EPOCH)
        Nodes(self.storage).heartbeat(node, self.true_time() + ahead)

    async def live(self, seconds: float, *beating: tuple[str, float]) -> float | None:
        """Let time pass, with a look now and then, and heartbeats of nodes with clocks that are so much ahead."""
        moment, every = None, 60.0 if seconds < DAY else 0.5 * HOUR
        for _ in range(int(seconds // every)):
            self.uptime += every
            for id, ahead in beating:
                self.heartbeat(id, ahead)
            moment = await self.clock.moment()
        return moment


@pytest.fixture
def cluster(threads: ThreadPools) -> Cluster:
    return Cluster(threads)


async def test_lone_clock_counts_after_an_hour(cluster: Cluster) -> None:
    """Nothing is read before."""
    assert await cluster.live(HOUR) is None
    assert not cluster.storage.calls

    assert await cluster.live(60) == cluster.true_time()


@pytest.mark.parametrize("ahead", [-50 * YEAR, -DAY, -61.0, 61.0, DAY, 50 * YEAR])
async def test_clock_that_is_set_counts_an_hour_later(cluster: Cluster, ahead: float) -> None:
    """At the boot, before NTP, or at any time: until it has gone evenly again."""
    await cluster.live(2 * HOUR)
    cluster.ahead = ahead

    assert await cluster.live(HOUR) is None
    cluster.ahead = 0.0
    assert await cluster.live(HOUR) is None
    assert await cluster.live(60) == cluster.true_time()


async def test_clock_that_is_set_a_little_counts(cluster: Cluster) -> None:
    await cluster.live(2 * HOUR)
    cluster.ahead = -59.0

    assert await cluster.live(60) == cluster.true_time() - 59.0


async def test_earliest_clock_of_the_nodes_that_are_up_counts(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Ours is 100 days ahead; two others are not, or less, and it is said once."""
    cluster.ahead = 100 * DAY
    assert await cluster.live(DAY, ("right", 0.0), ("ahead", DAY)) == cluster.true_time()
    assert caplog.text.count("the clock of another node is 100 days behind this one's") == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]

    assert await cluster.live(DAY, ("right", 0.0)) == cluster.true_time()
    assert len(caplog.records) == 1


async def test_clock_that_is_ahead_of_ours_counts_for_nothing(cluster: Cluster) -> None:
    assert await cluster.live(2 * HOUR, ("ahead", 50 * YEAR)) == cluster.true_time()


async def test_node_that_is_down_counts_no_longer(cluster: Cluster) -> None:
    """Its record expires."""
    await cluster.live(2 * HOUR, ("behind", -DAY))

    assert await cluster.live(120) == cluster.true_time()


async def test_record_that_stays_counts_for_minutes(cluster: Cluster) -> None:
    """A record that was copied has no time to live, and tells one time for ever."""
    cluster.storage.put("nodes/data/copied", Node("copied", "data", "1.0", "h", 1.0).to_record(EPOCH - YEAR))
    await cluster.live(HOUR)

    assert await cluster.live(60) == EPOCH - YEAR
    assert await cluster.live(240) == EPOCH - YEAR
    assert await cluster.live(60) == cluster.true_time()


async def test_wrong_clock_of_another_holds_nothing_back_for_ever(cluster: Cluster) -> None:
    """A node in 1970, or a writer of the storage who wants nothing removed: for a week."""
    assert await cluster.live(7 * DAY, ("lost", -EPOCH)) == cluster.uptime
    assert await cluster.live(2 * HOUR, ("lost", -EPOCH)) == cluster.true_time()


async def test_week_begins_anew_when_clocks_differ_again(cluster: Cluster) -> None:
    """What was long ago, with nothing to remove in between, does not count."""
    await cluster.live(DAY, ("lost", -YEAR))
    cluster.uptime += 30 * DAY

    assert await cluster.live(DAY, ("lost", -YEAR)) == cluster.true_time() - YEAR


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b'{"now": "1"}', b'{"now": true}', b'{"now": -1}', b'{"now": NaN}', b'{"n": 1}'],
)
async def test_node_that_tells_no_time_counts_for_nothing(cluster: Cluster, record: bytes) -> None:
    """One of an earlier release, or a broken record."""
    await cluster.live(2 * HOUR)
    cluster.storage.put("nodes/data/other", record)

    assert await cluster.clock.moment() == cluster.true_time()


async def test_asking_costs_what_is_up(cluster: Cluster) -> None:
    """One listing, and one read for each node."""
    await cluster.live(2 * HOUR, ("a", 0.0), ("b", 0.0))
    cluster.storage.calls.clear()

    await cluster.clock.moment()

    assert dict(cluster.storage.calls) == {"keys": 1, "get": 2}


async def test_what_this_node_has_announced_itself_does_not_hold_it_back(cluster: Cluster) -> None:
    """Its record tells the time of its last heartbeat, which is some seconds ago."""
    assert await cluster.live(2 * HOUR, ("us", -20.0)) == cluster.true_time()
