"""The events of all nodes: read only when somebody asks, and whatever the storage does."""

import asyncio
import threading

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin import event_history
from mitmproxy_acme.admin.event_history import EventHistory
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.event_log import SHOWN, EventKind, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock

NAME, OTHER = ServerName("a.example.test"), ServerName("b.example.test")


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager()


async def hosts(history: EventHistory) -> list[str]:
    return [event.host for event in await history.read()]


async def test_events_of_all_nodes_are_shown(make_manager: MakeManager, manager: Manager, clock: Clock) -> None:
    """This node's at once, the others' as soon as the reading before is a few seconds old."""
    other, history = make_manager(), EventHistory(manager)
    assert await history.read() == []
    for name, node in ((NAME, manager), (OTHER, other)):
        await node.obtain(Subject((name,)))
        await node.recorder.wait_idle()
        clock.advance(0.5)
    assert await hosts(history) == [NAME]
    clock.advance(3)
    assert await hosts(history) == [OTHER, NAME]
    assert [event.id.node for event in await history.read()] == [other.node.id, manager.node.id]


async def test_open_page_lists_at_most_every_few_seconds(manager: Manager, memory: Memory, clock: Clock) -> None:
    """A page asks every second, and there may be dozens of them; with none open nothing is listed."""
    listed, keys = list[str](), memory.keys

    def count(prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        listed.append(prefix)
        assert limit == SHOWN
        return keys(prefix, after=after, limit=limit)

    memory.keys = count  # type: ignore[method-assign]
    history = EventHistory(manager)
    assert history.known() == []
    assert listed == []
    for _ in range(12):
        await asyncio.gather(*(history.read() for _ in range(10)))
        clock.advance(1)
    assert listed == ["events/"] * 4


async def test_storage_that_is_down_leaves_what_is_known(
    make_manager: MakeManager, manager: Manager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is not the storage's trouble: a data node may lack the right."""
    other, history = make_manager(), EventHistory(manager)
    await other.obtain(Subject((OTHER,)))
    await other.recorder.wait_idle()
    assert await hosts(history) == [OTHER]

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("no permission")

    monkeypatch.setattr(memory, "keys", fail)
    clock.advance(10)
    assert await hosts(history) == [OTHER]
    assert manager.health.trouble_now is None


async def test_silent_storage_delays_nothing_for_long(
    manager: Manager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says later is there for the next reader."""
    monkeypatch.setattr(event_history, "_WITHIN", 0.0)
    speak, keys = threading.Event(), memory.keys
    manager.event_log.write(LoggedEvent(EventId(int(EPOCH * 1000), 0, "zz"), EventKind.RENEWED, OTHER))

    def wait(*arguments: str, **more: int) -> list[str]:
        speak.wait(10)
        return keys(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(memory, "keys", wait)
    history = EventHistory(manager)
    assert await history.read() == []
    speak.set()
    await history._readings.wait_idle()
    assert await hosts(history) == [OTHER]
