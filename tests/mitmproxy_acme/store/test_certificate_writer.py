"""Which of two nodes' certificates is kept, and what is written when the change feed cannot be."""

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.store.certificate_writer import CertificateWriter
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, make_certificate

NAME, ALSO = ServerName("a.example.test"), ServerName("b.example.test")
SUBJECT = Subject((NAME, ALSO))


@pytest.fixture
def writer(memory: Memory) -> CertificateWriter:
    return CertificateWriter(Store(memory, UNSEALED), RenewalSchedule(memory), ChangeFeed(memory, "node"))


@pytest.mark.parametrize(
    ("names", "lifetime", "kept"),
    [
        ([NAME, ALSO], 100.0, True),
        ([NAME, ALSO], 200.0, True),
        ([NAME, ALSO], 99.0, False),
        ([NAME], 200.0, False),
    ],
    ids=["lives as long", "lives longer", "ends earlier", "lacks a name"],
)
def test_faster_node_wins_if_its_certificate_is_as_good(
    writer: CertificateWriter, names: list[ServerName], lifetime: float, kept: bool
) -> None:
    """What another node stored meanwhile is kept where it serves the names and lives as long, else replaced."""
    empty = writer.store.slot(NAME)
    theirs, ours = make_certificate(names, lifetime=lifetime), make_certificate(SUBJECT.names, lifetime=100.0)
    assert writer.store.replace(empty, theirs)

    saved = writer.save(SUBJECT, empty, ours, check_at=EPOCH + 50, now=EPOCH)

    stored = writer.store.slot(NAME).certificate
    assert stored is not None
    assert saved.fingerprint == stored.fingerprint == (theirs if kept else ours).fingerprint


def test_announced_though_the_storage_failed_after_it_stored(
    writer: CertificateWriter, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt finds its own certificate, which no other node knows of (seed 50150 of the simulator)."""
    empty, ours = writer.store.slot(NAME), make_certificate(SUBJECT.names)

    def fail_after(memory: Memory, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        assert swap(memory, key, old, new, ttl=ttl)
        raise StorageUnavailable("the connection ended")

    swap = Memory.swap
    monkeypatch.setattr(Memory, "swap", fail_after)
    with pytest.raises(StorageUnavailable):
        writer.save(SUBJECT, empty, ours, check_at=EPOCH, now=EPOCH)
    monkeypatch.undo()
    others = ChangeFeed(memory, "another node")
    assert others.read_new(EPOCH) == []

    assert writer.save(SUBJECT, empty, ours, check_at=EPOCH, now=EPOCH) == ours
    assert others.read_new(EPOCH) == [NAME]


def test_saved_though_it_cannot_be_announced(
    writer: CertificateWriter, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other nodes look when the old one is overdue; the order has not failed."""

    def down(_feed: ChangeFeed, *_: object) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(ChangeFeed, "announce", down)
    ours = make_certificate(SUBJECT.names)
    assert writer.save(SUBJECT, writer.store.slot(NAME), ours, check_at=EPOCH, now=EPOCH) == ours
    assert writer.store.slot(NAME).certificate is not None
