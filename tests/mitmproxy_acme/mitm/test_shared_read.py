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


async def test_who_no_longer_waits_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the waiting ended: with a result, an error, or because the client has gone."""
    monkeypatch.setattr(shared_read, "MAX_WAITING", 2)
    monkeypatch.setattr(shared_read, "PAUSE", 0.0)
    results: list[Exception | int] = [1, ZeroDivisionError()]

    async def read() -> int:
        await asyncio.sleep(0)
        result = results.pop(0) if results else 3
        if isinstance(result, Exception):
            raise result
        return result

    shared = SharedRead("test", read)
    assert list(await asyncio.gather(shared.join(), shared.join(), shared.join())) == [1, 1, None]
    failed = await asyncio.gather(shared.join(), shared.join(), return_exceptions=True)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 2
    leaving = [asyncio.ensure_future(shared.join()) for _ in range(2)]
    await asyncio.sleep(0)
    for caller in leaving:
        caller.cancel()
    await asyncio.wait(leaving)
    assert list(await asyncio.gather(shared.join(), shared.join(), shared.join())) == [3, 3, None]
