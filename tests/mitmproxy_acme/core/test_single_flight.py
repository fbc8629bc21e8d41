"""Single flight, and the mapping that forgets."""

import asyncio
import logging
from functools import partial

import pytest

from acme_storage import StorageUnavailable
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


async def test_what_runs_is_told_with_its_time() -> None:
    """By key, for as long as it runs; a second caller begins nothing."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    end = asyncio.Event()

    async def work() -> str:
        await end.wait()
        return "done"

    task = flights.start("a", work)
    assert flights.start("a", work) is task
    assert ("a" in flights, "b" in flights, flights.get("b")) == (True, False, None)
    (seconds,) = flights.under_way().values()
    assert 0 <= seconds < 10
    future = flights.get("a")
    assert future is not None
    future.cancel()
    end.set()
    assert await task == "done"
    await asyncio.sleep(0)
    assert (flights.under_way(), "a" in flights, len(flights)) == ({}, False, 0)


async def test_error_that_is_expected_is_logged_for_developers_only(caplog: pytest.LogCaptureFixture) -> None:
    """One that is not with its traceback."""
    caplog.set_level(logging.DEBUG)
    flights: SingleFlight[str, None] = SingleFlight("test")

    async def fail(error: Exception) -> None:
        raise error

    for error in (IssuanceError("no"), StorageUnavailable("down"), ZeroDivisionError()):
        flights.start(type(error).__name__, partial(fail, error))
    await flights.wait_idle()
    await asyncio.sleep(0)
    lines = {record.message.split()[1]: record for record in caplog.records if record.message.startswith("test ")}
    assert {key: (line.levelname, bool(line.exc_info)) for key, line in lines.items()} == {
        "IssuanceError": ("DEBUG", False),
        "StorageUnavailable": ("DEBUG", False),
        "ZeroDivisionError": ("ERROR", True),
    }


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
