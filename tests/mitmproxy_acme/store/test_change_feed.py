"""The change feed: what one node announces the others hear, once."""

from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.change_feed import ChangeFeed
from tests.mitmproxy_acme.fakes import EPOCH


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
