"""Time, storage and a manager for the unit tests: in memory, and standing still until moved."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.config import Config
from mitmproxy_acme.manager import Manager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer

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
async def make_manager(clock: Clock, memory: Memory, issuer: FakeIssuer) -> AsyncIterator[MakeManager]:
    """Make managers on one storage, with the fake issuer; options as keywords."""
    made = []

    def make(**options: Any) -> Manager:
        config = Config.from_options({"acme_domains": ("**.example.test",), "acme_tos_accepted": True} | options)
        # The CA is what these tests are not about.
        manager = Manager(config, memory, issuer=issuer, now=clock, draw=lambda: 0.0)  # type: ignore[arg-type]
        made.append(manager)
        return manager

    yield make
    for manager in made:
        await manager.close()
