"""What a node knows of its storage, and how soon it looks again."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.storage_health import StorageHealth
from tests.mitmproxy_acme.fakes import Clock

DOWN = StorageUnavailable("connection refused")

type Break = Callable[..., None]


@pytest.fixture
async def health(memory: Memory, threads: ThreadPools) -> StorageHealth:
    return StorageHealth(memory, threads, "node")


@pytest.fixture
def break_(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let methods of the storage fail, and the others work."""

    def fail(*_: Any, **__: Any) -> None:
        raise DOWN

    def break_methods(*methods: str) -> None:
        monkeypatch.undo()
        for method in methods:
            monkeypatch.setattr(memory, method, fail)

    return break_methods


async def test_rest_ends_by_itself_and_by_trouble(health: StorageHealth) -> None:
    """A failed call is checked at once, whichever it was."""
    async with asyncio.timeout(20):
        await health.rest(0.001)
        resting = asyncio.ensure_future(health.rest(3_600))
        await asyncio.sleep(0)
        assert not resting.done()
        health.trouble(DOWN)
        await resting


async def test_storage_that_is_back_is_not_looked_at_without_a_pause(health: StorageHealth) -> None:
    """The next rest is as long as ever."""
    health.trouble(DOWN)
    assert await health.check()
    assert health.trouble_now is None
    resting = asyncio.ensure_future(health.rest(3_600))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not resting.done()
    resting.cancel()


async def test_storage_that_can_be_read_is_read(health: StorageHealth, break_: Break) -> None:
    """A full disk: it counts as down until it can be written, but stored certificates are served."""
    break_("put")
    health.trouble(DOWN)
    assert not await health.check()
    health.require()
    break_("put", "get")
    assert not await health.check()
    with pytest.raises(StorageUnavailable, match="storage is down: connection refused"):
        health.require()
    break_()
    assert await health.check()
    health.require()
    assert not await health.check()  # nothing has changed since


async def test_storage_that_is_down_is_looked_at_each_second(
    health: StorageHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However seldom a node looks otherwise; one that looks more often goes on so."""
    rests, sleep = list[float](), asyncio.sleep

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    health.trouble(DOWN)
    monkeypatch.setattr(asyncio, "sleep", rest)
    for interval in (3.0, 0.3):
        await health.rest(interval)
    assert rests == [1.0, 0.3]


async def test_attempt_to_write_leaves_nothing(health: StorageHealth, memory: Memory, clock: Clock) -> None:
    """What it wrote ends by itself: else each process would leave a record for ever."""
    health.trouble(DOWN)
    assert await health.check()
    assert len(memory.keys("")) == 1
    clock.advance(60)
    assert memory.keys("") == []
