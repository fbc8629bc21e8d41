"""Time, storage and a manager for the unit tests: in memory, and standing still until moved."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, manager_on

type MakeManager = Callable[..., Manager]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory:
    return Memory(now=clock)


@pytest.fixture
def issuer(clock: Clock) -> FakeIssuer:
    return FakeIssuer(clock)


@pytest.fixture
def threads() -> Iterator[ThreadPools]:
    pools = ThreadPools()
    yield pools
    pools.close()


@pytest.fixture
async def make_manager(clock: Clock, memory: Memory, issuer: FakeIssuer) -> AsyncIterator[MakeManager]:
    """Make managers on one storage, with the fake issuer; options as keywords."""
    made = []

    def make(**options: Any) -> Manager:
        manager = manager_on(memory, clock, issuer, **options)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        await manager.close()
