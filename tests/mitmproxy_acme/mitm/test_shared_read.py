"""Looks: who shares a read of the storage with whom."""

import asyncio

import pytest

from mitmproxy_acme.mitm import shared_read
from mitmproxy_acme.mitm.shared_read import SharedRead


class Reads:
    """What looks read: each is begun when it is called, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Event] = []
        self._changed = asyncio.Event()

    async def read(self) -> int:
        end = asyncio.Event()
        self.begun.append(end)
        self._changed.set()
        await end.wait()
        return len(self.begun)

    async def until(self, count: int) -> None:
        """Return when so many have begun."""
        while len(self.begun) < count:
            self._changed.clear()
            await self._changed.wait()


async def test_look_that_runs_answers_nobody_who_asks_later() -> None:
    """They share the next one, which starts when the one that runs has ended; there is never a second that waits."""
    reads = Reads()
    shared = SharedRead("test", reads.read)
    first = asyncio.ensure_future(shared.join())
    await reads.until(1)
    later = [asyncio.ensure_future(shared.join()) for _ in range(100)]
    await asyncio.sleep(0)
    assert len(reads.begun) == 1
    reads.begun[0].set()
    assert await first == 1
    await reads.until(2)
    reads.begun[1].set()
    assert await asyncio.gather(*later) == [2] * 100


async def test_one_that_gives_up_ends_no_look() -> None:
    """A client may leave at any moment: the others that share the look are answered."""
    reads = Reads()
    shared = SharedRead("test", reads.read)
    leaving, staying = (asyncio.ensure_future(shared.join()) for _ in range(2))
    await reads.until(1)
    leaving.cancel()
    reads.begun[0].set()
    assert await staying == 1


async def test_silent_storage_holds_so_many_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is let go in time, and who comes when too many wait is answered at once."""
    monkeypatch.setattr(shared_read, "MAX_WAITING", 3)
    reads = Reads()
    shared = SharedRead("test", reads.read)
    waiting = [asyncio.ensure_future(shared.join()) for _ in range(3)]
    await reads.until(1)
    assert await shared.join() is None
    reads.begun[0].set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    monkeypatch.setattr(shared_read, "MAX_WAIT", 0.0)
    assert await shared.join() is None
