"""Single flight, and the mapping that forgets."""

import asyncio
import logging

import pytest

from mitmproxy_acme.core.errors import IssuanceError
from mitmproxy_acme.core.lru_cache import LruCache
from mitmproxy_acme.core.single_flight import SingleFlight


async def test_those_who_wait_share_one_piece_of_work() -> None:
    """The task runs once, and every caller gets its result."""
    flights: SingleFlight[str, int] = SingleFlight("test")
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return runs

    assert await asyncio.gather(*(flights.join("a", work) for _ in range(10))) == [1] * 10
    assert len(flights) == 0
    assert await flights.join("a", work) == 2


async def test_failure_is_shared_and_then_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """An expected error reaches every caller, is not logged as ERROR, and is not cached."""
    flights: SingleFlight[str, int] = SingleFlight("test")

    async def fail() -> int:
        await asyncio.sleep(0)
        raise IssuanceError("no")

    results = await asyncio.gather(*(flights.join("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [IssuanceError] * 3
    assert len(flights) == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_unexpected_error_is_logged_when_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours is logged even if all callers have left."""
    flights: SingleFlight[str, None] = SingleFlight("test")

    async def fail() -> None:
        raise ZeroDivisionError

    flights.start("a", fail)
    await flights.wait_idle()
    await asyncio.sleep(0)
    assert "test a ended with ZeroDivisionError()" in caplog.text


async def test_cancelling_one_that_waits_leaves_the_work() -> None:
    """The task goes on when all callers have left."""
    flights: SingleFlight[str, None] = SingleFlight("test")
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    waiter = asyncio.ensure_future(flights.join("a", work))
    await asyncio.sleep(0)
    waiter.cancel()
    await flights.wait_idle()
    assert done.is_set()


async def test_cancel_ends_everything() -> None:
    """After ``cancel`` nothing is under way."""
    flights: SingleFlight[int, None] = SingleFlight("test")
    for n in range(3):
        flights.start(n, lambda: asyncio.sleep(60))
    await flights.cancel()
    assert len(flights) == 0


def test_recent_forgets_the_least_recently_used() -> None:
    """Reading counts as use; beyond its size the oldest is dropped."""
    recent: LruCache[str, int] = LruCache(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.forget("a")
    recent.forget("a")
    assert len(recent) == 1
    recent.clear()
    assert len(recent) == 0
