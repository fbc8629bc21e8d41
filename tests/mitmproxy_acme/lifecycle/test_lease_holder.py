"""A lease while work runs: it outlasts the work, a storage that fails for a moment, and nothing beyond."""

import asyncio
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.lease_holder import hold_lease
from mitmproxy_acme.store.lease import LEASE_TTL, Lease
from tests.mitmproxy_acme.fakes import Clock

NAME = "a.example.test"
sleep = asyncio.sleep


@pytest.fixture(autouse=True)
def _sleeps_move_the_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder's rests take no time, and are what the storage's clock goes by."""

    async def move(seconds: float) -> None:
        clock.advance(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", move)


def take(memory: Memory) -> Lease:
    lease = Lease.acquire(memory, NAME, "this")
    assert lease is not None
    return lease


async def pass_time(clock: Clock, seconds: float) -> None:
    end = clock() + seconds
    while clock() < end:
        await sleep(0)


async def test_lease_outlasts_work_of_minutes(memory: Memory, clock: Clock, threads: ThreadPools) -> None:
    """No other node gets it meanwhile; afterwards the next one does at once."""
    async with hold_lease(take(memory), threads):
        for _ in range(10):
            await pass_time(clock, LEASE_TTL)
            assert Lease.acquire(memory, NAME, "other") is None
    assert Lease.acquire(memory, NAME, "other") is not None


async def test_lease_outlasts_a_call_that_failed(
    memory: Memory, clock: Clock, threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next extension comes in time: one hiccup of the storage ends none of them."""
    swap, failures = memory.swap, [StorageUnavailable("for a moment")]

    def fail_once(*arguments: Any, **named: Any) -> bool:
        if failures:
            raise failures.pop()
        return swap(*arguments, **named)

    async with hold_lease(take(memory), threads):
        monkeypatch.setattr(memory, "swap", fail_once)
        await pass_time(clock, 5 * LEASE_TTL)
        assert failures == []
        assert Lease.acquire(memory, NAME, "other") is None


async def test_lease_that_cannot_be_freed_ends_by_itself(
    memory: Memory, clock: Clock, threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work that it was for has not failed, and nothing extends it any longer."""
    swap = memory.swap

    def free_nothing(key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        if new is None:
            raise StorageUnavailable("down")
        return swap(key, old, new, ttl=ttl)

    monkeypatch.setattr(memory, "swap", free_nothing)
    async with hold_lease(take(memory), threads):
        await pass_time(clock, LEASE_TTL)
    assert Lease.acquire(memory, NAME, "other") is None
    for _ in range(10):
        clock.advance(LEASE_TTL / 5)
        await asyncio.to_thread(lambda: None)
    assert Lease.acquire(memory, NAME, "other") is not None


async def test_nothing_goes_on_after_the_work(memory: Memory, threads: ThreadPools) -> None:
    """However it ended."""
    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        async with hold_lease(take(memory), threads):
            raise ZeroDivisionError
    await sleep(0)
    assert asyncio.all_tasks() == before


async def test_extension_ends_with_the_work(
    memory: Memory, threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it rests at that moment, and would find out by itself only at the end of its rest."""

    async def rest(seconds: float) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "sleep", rest)
    before = asyncio.all_tasks()
    async with hold_lease(take(memory), threads):
        await sleep(0)
        assert len(asyncio.all_tasks()) == len(before) + 1
    await sleep(0)
    assert asyncio.all_tasks() == before


async def test_lost_lease_is_said_once_and_left_to_its_owner(
    memory: Memory, clock: Clock, threads: ThreadPools, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that slept for longer than the lease: the work goes on, and the other one's lease stays."""
    lease = take(memory)
    clock.advance(LEASE_TTL + 1)
    others = Lease.acquire(memory, NAME, "other")
    assert others is not None
    async with hold_lease(lease, threads):
        for _ in range(100):
            await sleep(0)
            await asyncio.to_thread(lambda: None)
    assert [record.getMessage() for record in caplog.records if "lost" in record.getMessage()] == [
        f"{lease.key} was lost to another node; the final write decides whose certificate is stored"
    ]
    assert others.extend()
