"""What a node records of its events: what people see, few enough for the storage, whatever strangers ask for."""

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.events import (
    CertificateExpiring,
    CertificateFailed,
    CertificateObtained,
    CertificateRemoved,
    ChangedElsewhere,
    CheckScheduled,
    Event,
    ExpiredRemoved,
    RenewalScheduled,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.event_recorder import EventRecorder
from mitmproxy_acme.lifecycle.storage_health import StorageHealth
from mitmproxy_acme.store.event_log import EventKind, EventLog, LoggedEvent, newest
from mitmproxy_acme.store.nodes import Node
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock, FakeIssuer, make_certificate

NAME = ServerName("a.example.test")
SUBJECT = Subject((NAME,))
CERTIFICATE = make_certificate([NAME])
NODE = Node("aa", "standalone", "1", "edge-1", EPOCH)


class Recording:
    """A recorder on a storage; ``time`` is what its limits go by."""

    def __init__(self, memory: Memory, threads: ThreadPools, clock: Clock) -> None:
        self.log, self.time, self.now = EventLog(memory, UNSEALED), Clock(0), clock
        self.health = StorageHealth(memory, threads, NODE.id)
        self.recorder = EventRecorder(self.log, NODE, threads, self.health, clock, self.time)

    def fail(self, number: int) -> None:
        subject = Subject((ServerName(f"n{number}.example.test"),))
        self.recorder.on_event(CertificateFailed(subject, "ca", "", "no", 1, EPOCH + 60, NODE.id, 1.5))

    def obtain(self) -> None:
        self.recorder.on_event(CertificateObtained(SUBJECT, CERTIFICATE, "ca", 2.5, renewal=False, node=NODE.id))

    async def stored(self) -> list[LoggedEvent]:
        await self.recorder.wait_idle()
        return newest(self.log.read(self.now(), {}).values())


@pytest.fixture
def recording(memory: Memory, threads: ThreadPools, clock: Clock) -> Recording:
    return Recording(memory, threads, clock)


async def test_stored_events_are_trimmed_now_and_then(make_manager: MakeManager) -> None:
    """With each twentieth that this node writes, the first included."""
    manager = make_manager()
    recorder, trimmed = manager.recorder, list[int]()
    recorder._log.trim = lambda: trimmed.append(recorder._recorded)  # type: ignore[method-assign]
    for _ in range(41):
        recorder.on_event(CertificateRemoved(ServerName("a.example.test"), None, "node"))
        await recorder.wait_idle()
    assert trimmed == [1, 21, 41]


async def test_what_people_see_is_recorded(recording: Recording) -> None:
    """Each kind with what it says; what only concerns nodes is left out."""
    second = ServerName("b.example.test")
    events: list[Event] = [
        CertificateObtained(SUBJECT, CERTIFICATE, "ca", 2.5, renewal=False, node="aa"),
        CertificateObtained(SUBJECT, CERTIFICATE, "ca", 2.5, renewal=True, node="aa"),
        CertificateFailed(SUBJECT, "ca", "unauthorized", "no such host", 2, EPOCH + 60, "aa", 1.5),
        CertificateExpiring(SUBJECT, CERTIFICATE, "no such host", "aa"),
        CertificateRemoved(NAME, "keyCompromise", "aa", replaced=True),
        CertificateRemoved(NAME, None, "aa"),
        ExpiredRemoved(frozenset({NAME, second}), "aa"),
        ChangedElsewhere(frozenset({NAME})),
        RenewalScheduled(NAME),
        CheckScheduled(EPOCH),
    ]
    for event in events:
        recording.recorder.on_event(event)

    stored = (await recording.stored())[::-1]
    assert stored == recording.recorder.recent
    shown = [(event.kind, event.ca, event.seconds, event.reason, event.retry_at, event.more) for event in stored]
    assert shown == [
        (EventKind.OBTAINED, "ca", 2.5, "", None, 0),
        (EventKind.RENEWED, "ca", 2.5, "", None, 0),
        (EventKind.FAILED, "ca", 1.5, "no such host", EPOCH + 60, 0),
        (EventKind.EXPIRING, "", None, "no such host", None, 0),
        (EventKind.REMOVED, "", None, "revoked (keyCompromise), replaced by a certificate with a new key", None, 0),
        (EventKind.REMOVED, "", None, "deleted", None, 0),
        (EventKind.REMOVED, "", None, "expired long ago", None, 1),
    ]
    assert {(event.host, event.machine, event.id.node) for event in stored} == {(NAME, "edge-1", "aa")}


async def test_flood_of_failures_writes_few_records(memory: Memory, recording: Recording) -> None:
    """Twenty at once and six a minute; the rest are counted, and hide nothing else."""
    for number in range(5_000):
        recording.fail(number)
    recording.obtain()
    stored = await recording.stored()
    assert len(memory.keys("events/")) == 21
    assert (stored[0].kind, stored[0].left_out) == (EventKind.OBTAINED, 4_980)

    recording.time.advance(60)
    for number in range(5_000):
        recording.fail(number)
    recording.time.advance(10)
    recording.fail(0)
    assert (await recording.stored())[0].left_out == 4_994
    assert len(memory.keys("events/")) == 28


async def test_storage_stays_small_through_a_long_flood(memory: Memory, recording: Recording) -> None:
    """A day of failures at the highest rate leaves a few hundred records."""
    for _ in range(1_440):
        recording.time.advance(60)
        recording.now.advance(60)
        for number in range(10):
            recording.fail(number)
        await recording.recorder.wait_idle()
    assert len(memory.keys("events/")) <= 220
    assert len(await recording.stored()) == 100


async def test_storage_that_is_down_costs_the_record_alone(
    memory: Memory, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node itself still shows what happened, and a lacking right to write there is no storage that is down."""

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("no permission")

    monkeypatch.setattr(memory, "put", fail)
    recording.obtain()
    assert await recording.stored() == []
    assert [event.host for event in recording.recorder.recent] == [NAME]
    assert recording.health.trouble_now is None


async def test_order_is_in_the_log_of_its_storage(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """Of every manager, also that of a command; closing waits for the record."""
    manager, other = make_manager(), make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    issuer.error = ChallengeFailed("no such host")
    with pytest.raises(ChallengeFailed):
        await manager.obtain(Subject((ServerName("b.example.test"),)))
    await manager.wait_idle()
    failed, obtained = newest(other.event_log.read(clock(), {}).values())
    assert (obtained.kind, obtained.host, obtained.ca) == (EventKind.OBTAINED, NAME, "fake-ca")
    assert (failed.kind, failed.reason, failed.id.node) == (EventKind.FAILED, "no such host", manager.node.id)


async def test_node_that_may_not_write_events_is_well(
    memory: Memory, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data node may lack that right: nothing fails, and nothing says that the storage is down."""

    def refuse(log: EventLog, event: LoggedEvent) -> None:
        raise StorageUnavailable("you may not write there")

    with monkeypatch.context() as refusing:
        refusing.setattr(EventLog, "write", refuse)
        recording.obtain()
        await recording.recorder.wait_idle()
    assert recording.health.trouble_now is None
    recording.obtain()
    assert len(await recording.stored()) == 1
