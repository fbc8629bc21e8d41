"""The change feed: what one node announces the others hear, once."""

from dataclasses import replace

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.change_feed import ChangeFeed, is_deleted
from mitmproxy_acme.store.keys import change_key
from tests.mitmproxy_acme.fakes import EPOCH, Clock, make_certificate

_A, _B, _C = (ServerName(f"{letter}.example.test") for letter in "abc")


def test_a_key_that_is_no_announcement_keeps_none_from_being_heard() -> None:
    """A foreign key is skipped, first or last."""
    storage = Memory(lambda: EPOCH)
    teller, hearer = ChangeFeed(storage, "one"), ChangeFeed(storage, "two")
    for foreign in ("changes/9999999999999", "changes/a~b", "changes/x/y"):
        storage.put(foreign, b"")
    teller.announce(ServerName("a.test"), EPOCH)
    assert hearer.read_new(EPOCH) == ["a.test"]
    assert hearer.read_new(EPOCH) == []
    assert teller.read_new(EPOCH) == []


def test_changes_of_other_nodes_are_read_once(memory: Memory) -> None:
    """Each id once, however often it was announced; a node's own are no news to it."""
    here, other = ChangeFeed(memory, "here"), ChangeFeed(memory, "other")
    for id in (_A, _B, _A):
        other.announce(id, EPOCH)
    here.announce(_C, EPOCH)
    assert here.read_new(EPOCH) == [_A, _B]
    assert here.read_new(EPOCH) == here.read_new(EPOCH, all=True) == []
    assert other.read_new(EPOCH) == [_C]
    other.announce(_A, EPOCH + 1)
    assert here.read_new(EPOCH + 1) == [_A]


def test_announcement_ends(memory: Memory, clock: Clock) -> None:
    """That of a change after a minute, that of a deletion after a day."""
    feed, other = ChangeFeed(memory, "here"), ChangeFeed(memory, "other")
    other.announce(_A, clock())
    other.announce(_B, clock(), deleted=True)
    clock.advance(59)
    assert feed.read_new(clock()) == [_A, _B]
    assert set(feed.deletions([_A, _B, _C])) == {_B}
    clock.advance(2)
    assert [key.rpartition("~")[2] for key in memory.keys("changes/")] == [_B]
    clock.advance(86_400 - 62)
    assert set(feed.deletions([_B])) == {_B}
    assert feed.deletions([_A]) == {}
    clock.advance(2)
    assert memory.keys("changes/") == []


def test_clock_that_is_behind_is_heard_sooner_or_later(memory: Memory) -> None:
    """By ten minutes at once, by more in a read of all."""
    feed, other = ChangeFeed(memory, "here"), ChangeFeed(memory, "other")
    other.announce(_A, EPOCH - 590)
    other.announce(_B, EPOCH - 700)
    assert feed.read_new(EPOCH) == [_A]
    assert feed.read_new(EPOCH, all=True) == [_B]
    assert feed.read_new(EPOCH) == feed.read_new(EPOCH, all=True) == []


def test_announcement_of_an_earlier_release_may_be_of_a_deletion(memory: Memory) -> None:
    """It does not say, so the certificate is not stored again."""
    memory.put(change_key(EPOCH, 0, "other", _A), b"")
    assert ChangeFeed(memory, "here").deletions([_A]) == {_A: EPOCH}


def test_loss_of_a_mark_is_noticed_once(memory: Memory) -> None:
    """By each node; a new mark is another one."""
    feed, other = ChangeFeed(memory, "here"), ChangeFeed(memory, "other")
    feed.read_new(EPOCH)
    assert not feed.is_marked
    assert not feed.take_loss()
    feed.leave_mark()
    assert feed.is_marked
    for each in (feed, other):
        assert each.read_new(EPOCH) == []
        assert not each.take_loss()
    for key in memory.keys(""):
        memory.delete(key)
    for each in (feed, other):
        each.read_new(EPOCH)
    feed.leave_mark()
    for each in (feed, other):
        each.read_new(EPOCH)
        assert [each.take_loss(), each.take_loss()] == [True, False]
        assert each.is_marked


def test_replaced_certificate_is_announced_when_the_storage_can_be_written(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage fails while it is announced; later its disk is full, and then it is not."""
    feed, other = ChangeFeed(memory, "here"), ChangeFeed(memory, "other")

    def fail(*args: object, **options: object) -> None:
        raise StorageUnavailable("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(memory, "put", fail)
        for id in (_A, _B):
            with pytest.raises(StorageUnavailable):
                feed.announce(id, EPOCH)
        with pytest.raises(StorageUnavailable):
            feed.announce(_C, EPOCH, deleted=True)
        assert feed.read_new(EPOCH) == []
    assert other.read_new(EPOCH) == []

    feed.read_new(EPOCH)
    assert sorted(other.read_new(EPOCH)) == [_A, _B]
    feed.read_new(EPOCH)
    assert other.read_new(EPOCH) == []


def test_deletion_whose_time_cannot_be_read_counts(memory: Memory) -> None:
    """For every certificate of the name, whenever it began: what was deleted is not stored again."""
    memory.put(f"changes/then~node~{_A}", b"deleted")
    memory.put("changes/nobodys", b"deleted")
    deletions = ChangeFeed(memory, "here").deletions([_A, _B])
    assert set(deletions) == {_A}
    assert is_deleted(make_certificate([_A], now=EPOCH + 1_000 * DAY), deletions, EPOCH)


@pytest.mark.parametrize(("obtained", "deleted"), [(EPOCH + 1_000.0, False), (EPOCH + 80 * DAY, True)])
def test_deletion_counts_for_what_was_obtained_in_the_future(memory: Memory, obtained: float, deleted: bool) -> None:
    """Not for what a node obtained since; but for what one obtained before whose clock was ahead."""
    feed = ChangeFeed(memory, "here")
    feed.announce(_A, EPOCH, deleted=True)
    certificate = replace(make_certificate([_A], now=EPOCH - DAY), obtained=obtained)
    assert is_deleted(certificate, feed.deletions([_A]), EPOCH + 2_000.0) is deleted
