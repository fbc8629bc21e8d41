"""Which callers share a read of the storage."""

import asyncio

import pytest

from mitmproxy_acme.mitm import shared_read
from mitmproxy_acme.mitm.shared_read import SharedRead


class Reads:
    """What is read: each read begins when it is called, and ends when the test says so."""

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
        """Return when so many reads have begun."""
        while len(self.begun) < count:
            self._changed.clear()
            await self._changed.wait()


async def test_read_that_runs_is_not_joined() -> None:
    """Later callers share the next read, which starts when the running one has ended; only one read waits."""
    reads = Reads()
    shared = SharedRead("test", reads.read)
    first = asyncio.ensure_future(shared.join())
    await reads.until(1)
    later = [asyncio.ensure_future(shared.join()) for _ in range(100)]
    for _ in range(10):  # so many turns of the loop that the next would have begun
        await asyncio.sleep(0)
    assert len(reads.begun) == 1
    reads.begun[0].set()
    assert await first == 1
    await reads.until(2)
    reads.begun[1].set()
    assert await asyncio.gather(*later) == [2] * 100


async def test_caller_that_gives_up_ends_no_read() -> None:
    """A client may disconnect at any moment: the others that share the read are answered."""
    reads = Reads()
    shared = SharedRead("test", reads.read)
    leaving, staying = (asyncio.ensure_future(shared.join()) for _ in range(2))
    await reads.until(1)
    leaving.cancel()
    reads.begun[0].set()
    assert await staying == 1


async def test_waiting_has_a_limit_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller gives up in time, and one that comes when too many wait is answered at once."""
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
