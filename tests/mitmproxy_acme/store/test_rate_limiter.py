"""The account of a CA's limits: what it grants, what it forgets, and that no node's spending is lost."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_storage import Storage, StorageCorrupt, StorageUnavailable, open_storage
from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import BackingOff
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, LimitKind, Limits
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.rate_limiter import LimitExceeded, RateLimiter
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, Clock
from tests.servers import stores
from tests.servers.binaries import need

HOUR = 3_600.0
LIMITS = Limits(Limit(300, 3 * HOUR), Limit(50, 7 * DAY), Limit(5, 7 * DAY), Limit(5, HOUR))
A, B = ServerName("a.example.com"), ServerName("b.example.com")
THREADS = 8


@pytest.fixture
def budgets(memory: Memory, clock: Clock) -> RateLimiter:
    return RateLimiter(memory, DIRECTORY, LIMITS, clock)


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    """Open a real store, and open it again as another node does."""
    if request.param == "memory":
        shared = Memory()
        yield lambda: shared
        return
    if request.param == "redis":
        need("redis-server")
    opened: list[Storage] = []

    def open_again() -> Storage:
        opened.append(open_storage(place.open_url, default_folder=tmp_path))
        return opened[-1]

    with stores.running(request.param, tmp_path) as place:
        yield open_again
        for storage in opened:
            storage.close()


def test_new_account_forbids_nothing(budgets: RateLimiter, memory: Memory) -> None:
    """Every bucket is full at first, and a check writes nothing."""
    assert budgets.check((A, B)) is None
    assert memory.keys("") == []
    [account] = budgets.remaining()
    assert (account.kind, account.scope, account.left, account.full_at) == (LimitKind.ORDERS, "", 300, EPOCH)


def test_orders_end_and_come_back_one_by_one(budgets: RateLimiter, clock: Clock) -> None:
    """300 at once, then one in 36 s, whatever the names are; after three hours all of them."""
    granted = [budgets.take_order((ServerName(f"n{n}.test"),)) for n in range(301)]
    assert granted[:300] == [None] * 300
    assert granted[300] == LimitExceeded(LimitKind.ORDERS, "", Limit(300, 3 * HOUR), EPOCH + 36)
    clock.advance(35.9)
    assert budgets.check((A,)) is not None
    clock.advance(0.1)
    assert budgets.take_order((A,)) is None
    assert budgets.take_order((A,)) is not None
    clock.advance(3 * HOUR)
    assert budgets.remaining()[0].left == 300


def test_certificates_of_a_registered_domain_end(budgets: RateLimiter, clock: Clock) -> None:
    """50 certificates under it, whatever the hosts; another domain has its own."""
    for n in range(50):
        assert budgets.check((ServerName(f"n{n}.example.com"),)) is None
        budgets.count_certificate((ServerName(f"n{n}.example.com"),))
    exhausted = budgets.check((A,))
    assert exhausted is not None
    assert (exhausted.kind, exhausted.scope) == (LimitKind.CERTIFICATES_PER_DOMAIN, "example.com")
    assert exhausted.until == pytest.approx(EPOCH + 7 * DAY / 50)
    assert budgets.check((ServerName("example.org"),)) is None
    assert budgets.check((ServerName("example.org"), A)) == exhausted
    clock.time = exhausted.until
    assert budgets.check((A,)) is None


def test_certificates_for_the_same_names_end(budgets: RateLimiter) -> None:
    """Five for exactly these names in any order; one of them alone is another set."""
    for _ in range(5):
        budgets.count_certificate((A, B))
    exhausted = budgets.check((B, A))
    assert exhausted is not None
    assert (exhausted.kind, exhausted.scope) == (LimitKind.DUPLICATES, "b.example.com (+1)")
    assert exhausted.until == pytest.approx(EPOCH + 7 * DAY / 5)
    assert budgets.check((A,)) is None


def test_failures_of_a_name_forbid_every_order_with_it(budgets: RateLimiter, clock: Clock) -> None:
    """Five in an hour; then one in twelve minutes. A wildcard's are its name's."""
    for _ in range(5):
        budgets.count_failed_validation(A)
    exhausted = budgets.check((B, ServerName(f"*.{A}")))
    assert exhausted == LimitExceeded(LimitKind.FAILED_VALIDATIONS, A, Limit(5, HOUR), EPOCH + 720)
    assert budgets.check((B,)) is None
    clock.advance(720)
    assert budgets.check((A,)) is None


def test_order_that_is_forbidden_counts_nowhere(budgets: RateLimiter) -> None:
    """A name that may not be ordered does not eat the account's orders."""
    for _ in range(5):
        budgets.count_failed_validation(A)
    assert budgets.take_order((A,)) is not None
    assert budgets.remaining()[0].left == 300


def test_limit_that_forbids_longest_is_the_answer(budgets: RateLimiter) -> None:
    """Who waits for that one finds no other at its edge."""
    for _ in range(5):
        budgets.count_failed_validation(A)
        budgets.count_certificate((A,))
    exhausted = budgets.check((A,))
    assert exhausted is not None
    assert exhausted.kind is LimitKind.DUPLICATES


def test_limit_that_is_off_costs_nothing(memory: Memory, clock: Clock) -> None:
    """A CA without limits forbids nothing, and nothing is written for it."""
    free = RateLimiter(memory, DIRECTORY, Limits(), clock)
    for _ in range(60):
        assert free.take_order((A,)) is None
        free.count_certificate((A,))
        free.count_failed_validation(A)
    assert free.remaining() == ()
    assert memory.keys("") == []


def test_each_ca_has_its_own_account(budgets: RateLimiter, memory: Memory, clock: Clock) -> None:
    """A limit that is used up at one CA is not at another."""
    for _ in range(5):
        budgets.count_failed_validation(A)
    assert RateLimiter(memory, "https://other.test/directory", LIMITS, clock).check((A,)) is None


def test_full_bucket_vanishes(budgets: RateLimiter, memory: Memory, clock: Clock) -> None:
    """Storage holds no more than what was spent lately."""
    budgets.take_order((A,))
    budgets.count_failed_validation(A)
    budgets.count_certificate((A,))
    assert len(memory.keys("budgets/")) == 4
    clock.advance(36)
    assert len(memory.keys("budgets/")) == 3
    clock.advance(7 * DAY / 5)
    assert memory.keys("budgets/") == []


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b'{"full_at": 1e12}',
        b'{"full_at": NaN, "scope": "x"}',
        b'{"full_at": Infinity, "scope": "x"}',
        b'{"full_at": "soon", "scope": "x"}',
        b'{"full_at": %s, "scope": "x"}' % (b"9" * 400),
    ],
)
def test_broken_record_is_a_full_bucket(record: bytes, budgets: RateLimiter, memory: Memory) -> None:
    """It blocks no order, counts again, and does not spoil the page."""
    budgets.count_failed_validation(A)
    [key] = memory.keys("budgets/")
    memory.put(key, record)
    assert budgets.check((A,)) is None
    assert [left.kind for left in budgets.remaining()] == [LimitKind.ORDERS]
    budgets.count_failed_validation(A)
    [_, failures] = budgets.remaining()
    assert (failures.scope, failures.left) == (A, 4)


def test_record_that_the_adapter_cannot_read_is_replaced(
    budgets: RateLimiter, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a broken one, although it cannot be swapped."""
    budgets.count_failed_validation(A)
    [key] = memory.keys("budgets/")
    read, corrupt = memory.get, {key}

    def get(key: str) -> bytes | None:
        if key in corrupt:
            raise StorageCorrupt("cut short")
        return read(key)

    def delete(key: str) -> None:
        corrupt.discard(key)
        memory.swap(key, read(key), None)

    monkeypatch.setattr(memory, "get", get)
    monkeypatch.setattr(memory, "delete", delete)
    assert budgets.check((A,)) is None
    assert [left.kind for left in budgets.remaining()] == [LimitKind.ORDERS]
    assert corrupt
    budgets.count_failed_validation(A)
    assert [left.left for left in budgets.remaining()] == [300, 4]


def test_clock_that_was_ahead_locks_nobody_out(budgets: RateLimiter, memory: Memory, clock: Clock) -> None:
    """What a node with a wrong clock has counted is not believed: the bucket would be empty until that time comes."""
    ahead = Clock(EPOCH + 365 * DAY)
    RateLimiter(memory, DIRECTORY, LIMITS, ahead).count_failed_validation(A)
    assert budgets.check((A,)) is None
    clock.advance(DAY)
    assert budgets.check((A,)) is None


def test_storage_that_is_down_is_an_error(
    budgets: RateLimiter, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits never seem full: nothing is ordered then."""

    def down(key: str) -> bytes:
        raise StorageUnavailable("no connection")

    monkeypatch.setattr(memory, "get", down)
    for call in (budgets.check, budgets.take_order, budgets.count_certificate):
        with pytest.raises(StorageUnavailable):
            call((A,))
    with pytest.raises(StorageUnavailable):
        budgets.count_failed_validation(A)
    with pytest.raises(StorageUnavailable):
        budgets.remaining()


def test_page_has_the_account_and_the_least_full(budgets: RateLimiter, clock: Clock) -> None:
    """The account first, full or not; then the scopes nearest to their edge, and no more than are asked for."""
    for n in range(30):
        budgets.count_failed_validation(ServerName(f"n{n}.test"))
    for _ in range(4):
        budgets.count_failed_validation(A)
    for _ in range(3):
        budgets.count_certificate((A, B))
    budgets.take_order((A,))
    shown = [(left.kind, left.scope, left.left, left.limit.capacity) for left in budgets.remaining()]
    assert len(shown) == 21
    assert shown[:4] == [
        (LimitKind.ORDERS, "", 299, 300),
        (LimitKind.FAILED_VALIDATIONS, A, 1, 5),
        (LimitKind.DUPLICATES, "a.example.com (+1)", 2, 5),
        (LimitKind.FAILED_VALIDATIONS, "n0.test", 4, 5),
    ]
    assert budgets.remaining(1)[1].full_at == EPOCH + 4 * 720
    domains = [left for left in budgets.remaining(100) if left.kind is LimitKind.CERTIFICATES_PER_DOMAIN]
    assert [(left.scope, left.left) for left in domains] == [("example.com", 47)]
    clock.advance(7 * DAY)
    assert len(budgets.remaining(100)) == 1


@pytest.mark.parametrize(
    ("kind", "scope", "limit", "wait", "said"),
    [
        (
            LimitKind.CERTIFICATES_PER_DOMAIN,
            "example.com",
            Limit(50, 7 * DAY),
            3 * HOUR,
            "a.example.com: 50 certificates for example.com in 7 days are used up at letsencrypt; "
            "the next order is possible in 3 h",
        ),
        (
            LimitKind.ORDERS,
            "",
            Limit(300, 3 * HOUR),
            36.0,
            "300 new orders in 3 h are used up at letsencrypt; the next",
        ),
        (
            LimitKind.DUPLICATES,
            "a.example.com (+1)",
            Limit(5, 7 * DAY),
            30 * HOUR,
            "5 certificates for exactly the names of a.example.com (+1) in 7 days are used up",
        ),
        (
            LimitKind.FAILED_VALIDATIONS,
            "a.example.com",
            Limit(5, HOUR),
            720.0,
            "5 failed validations of a.example.com in",
        ),
    ],
)
def test_refusal_says_what_is_used_up_where_and_for_how_long(
    kind: LimitKind, scope: str, limit: Limit, wait: float, said: str
) -> None:
    """One sentence for a person, in the class that policy reads as: do not ask before then."""
    error = LimitExceeded(kind, scope, limit, EPOCH + wait).refusal(Subject((A,)), "letsencrypt", EPOCH)
    assert said in str(error)
    assert isinstance(error, BackingOff)
    assert error.until == EPOCH + wait


def test_many_threads_lose_nothing(store: Callable[[], Storage], clock: Clock) -> None:
    """Concurrent nodes that share a bucket are counted to the last token."""
    nodes = [RateLimiter(store(), DIRECTORY, LIMITS, clock) for _ in range(THREADS)]
    together = threading.Barrier(THREADS)

    def spend(node: RateLimiter) -> None:
        together.wait()
        for _ in range(6):
            node.count_certificate((A,))

    side_by_side(nodes, spend)
    domain, *_ = (left for left in nodes[0].remaining() if left.kind is LimitKind.CERTIFICATES_PER_DOMAIN)
    assert (domain.scope, domain.left) == ("example.com", 50 - 6 * THREADS)


def test_many_threads_get_no_more_than_there_is(store: Callable[[], Storage], clock: Clock) -> None:
    """However many nodes order at once, the account's orders are given out once each."""
    limits = Limits(orders=Limit(30, HOUR))
    nodes = [RateLimiter(store(), DIRECTORY, limits, clock) for _ in range(THREADS)]
    together = threading.Barrier(THREADS)
    answers: list[LimitExceeded | None] = []

    def order(node: RateLimiter) -> None:
        together.wait()
        answers.extend(node.take_order((A,)) for _ in range(6))

    side_by_side(nodes, order)
    assert len(answers) == 6 * THREADS
    assert answers.count(None) == 30
    assert nodes[0].remaining()[0].left == 0


def test_reserve_is_kept_though_another_node_orders_at_the_same_moment(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the last order that visitors may have, between our look and our write."""
    limits = Limits(orders=Limit(10, HOUR))
    here, other = (RateLimiter(memory, DIRECTORY, limits, clock) for _ in range(2))
    for _ in range(7):
        assert other.take_order((A,), for_visitor=True) is None
    check = here.check

    def late_check(names: tuple[ServerName, ...], *, for_visitor: bool = False) -> LimitExceeded | None:
        found = check(names, for_visitor=for_visitor)
        assert other.take_order((A,)) is None
        return found

    monkeypatch.setattr(RateLimiter, "check", lambda self, *a, **k: late_check(*a, **k) if self is here else None)
    refused = here.take_order((A,), for_visitor=True)
    assert refused is not None
    assert (refused.reserve, here.remaining()[0].left) == (2, 2)


def side_by_side(nodes: list[RateLimiter], work: Callable[[RateLimiter], None]) -> None:
    """Have each node work in a thread of its own; an error in any of them is raised."""
    with ThreadPoolExecutor(len(nodes)) as threads:
        for done in [threads.submit(work, node) for node in nodes]:
            done.result()


@given(
    capacity=st.integers(1, 8),
    interval=st.floats(0.1, 1e6),
    waits=st.lists(st.floats(0, 0.6), min_size=1, max_size=60),
)
def test_no_window_grants_more_than_capacity_and_refill(capacity: int, interval: float, waits: list[float]) -> None:
    """In each window, at most a full bucket and its refill in that window are granted; and an attempt at the announced
    time is not refused.
    """
    clock = Clock()
    limit = Limit(capacity, capacity * interval)
    budgets = RateLimiter(Memory(now=clock), DIRECTORY, Limits(orders=limit), clock)
    granted: list[float] = []
    for wait in waits:
        clock.advance(wait * limit.period)
        exhausted = budgets.take_order((A,))
        if exhausted is not None:
            assert exhausted.until > clock.time
            clock.time = exhausted.until
            assert budgets.take_order((A,)) is None
        granted.append(clock.time)
    for first, begin in enumerate(granted):
        for last, end in enumerate(granted[first:], first):
            assert last - first + 1 <= capacity + (end - begin) / limit.interval + 0.01


def test_record_holds_no_more_than_its_scope_and_a_time(budgets: RateLimiter, memory: Memory) -> None:
    """It is small, and readable for people who inspect the store."""
    budgets.count_certificate(tuple(ServerName(f"n{n}.example.com") for n in range(100)))
    records = [memory.get(key) for key in memory.keys("budgets/")]
    assert [json.loads(record or b"").keys() for record in records] == [{"full_at", "scope"}] * 2
    assert max(len(record or b"") for record in records) < 100
