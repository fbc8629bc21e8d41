"""The typed view of storage, leases and the calendar."""

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageCorrupt
from acme_storage.memory import Memory
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import CertificateError
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.core.renewal import RenewalInfo
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.keys import key_part
from mitmproxy_acme.store.lease import LEASE_TTL, Lease
from mitmproxy_acme.store.record_warnings import RecordWarnings
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock, make_certificate

NAME = ServerName("a.test")


def test_certificate_is_replaced_only_if_nobody_was_faster(memory: Memory) -> None:
    """The second writer from the same slot learns it, and overwrites nothing."""
    store = Store(memory, UNSEALED)
    empty = store.slot(NAME)
    first, second = make_certificate([NAME]), make_certificate([NAME])
    assert store.replace(empty, first)
    assert not store.replace(empty, second)
    stored = store.slot(NAME)
    assert stored.certificate is not None
    assert stored.certificate.fingerprint == first.fingerprint
    assert store.replace(stored, second)


def test_record_that_the_adapter_cannot_read_is_replaced(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corrupt record does not block its key for ever."""
    store = Store(memory, UNSEALED)
    memory.put(f"certificates/{NAME}", b"x")
    with monkeypatch.context() as broken:

        def corrupt(key: str) -> bytes:
            raise StorageCorrupt("cut short")

        broken.setattr(memory, "get", corrupt)
        slot = store.slot(NAME)
    assert slot.corrupt
    assert store.replace(slot, make_certificate([NAME]))


def test_account_key_is_claimed_once(memory: Memory) -> None:
    """If two nodes make a key at the same time, one wins, and both use that key."""
    store = Store(memory, UNSEALED)
    first, second = Account(DIRECTORY, "1", key="{}"), Account(DIRECTORY, "2", key="{}")
    assert store.claim_account(first) == first
    assert store.claim_account(second) == first
    store.save_account(Account(DIRECTORY, "1", "https://ca.test/acct/1", "{}"))
    found = store.account(DIRECTORY)
    assert found is not None
    assert found.uri == "https://ca.test/acct/1"
    assert store.account("https://other.test/directory") is None


def test_broken_account_is_made_anew(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """Junk in place of the account is logged once, and a new key replaces it."""
    store = Store(memory, UNSEALED)
    store.save_account(Account(DIRECTORY, "1", key="{}"))
    (key,) = memory.keys("accounts/")
    memory.put(key, b"{junk")
    assert store.account(DIRECTORY) is None
    assert "cannot be read and is created again" in caplog.text
    new = Account(DIRECTORY, "2", key="{}")
    assert store.claim_account(new) == new
    with pytest.raises(CertificateError):
        Account.from_record(b"{junk")


def test_account_key_never_shows() -> None:
    """An account can be logged."""
    assert "secret" not in repr(Account(DIRECTORY, "1", key="secret", next_key="secret"))


def test_account_has_two_keys_while_its_key_changes(memory: Memory) -> None:
    """Both come back, and both are sealed as one; a record of a release that knew only one is read as well."""
    account = Account(DIRECTORY, "1", "https://ca.test/acct/1", '{"d": "old"}', '{"d": "new"}', "me@example.com")
    assert Account.from_record(account.to_record()) == account
    sealed = Store(memory, RecordCipher([Fernet.generate_key().decode()]))
    sealed.save_account(account)
    assert sealed.account(DIRECTORY) == account
    (record,) = (memory.get(key) or b"" for key in memory.keys("accounts/"))
    assert b"old" not in record
    assert b"new" not in record
    former = b'{"directory": "d", "thumbprint": "1", "uri": "u", "key": "{}"}'
    assert Account.from_record(former) == Account("d", "1", "u", "{}")


def test_challenge_is_answered_here_and_by_every_node(memory: Memory, clock: Clock) -> None:
    """The node that ordered answers from memory, the others from storage; both forget it when it is over."""
    here, elsewhere = Store(memory, UNSEALED), Store(memory, UNSEALED)
    proof = Proof("http-01", "token", "token.thumbprint")
    here.put_proof(proof)
    assert here.local_proof("http-01", "token") == "token.thumbprint"
    assert elsewhere.local_proof("http-01", "token") is None
    assert elsewhere.proof("http-01", "token") == "token.thumbprint"
    here.delete_proof(proof)
    assert here.local_proof("http-01", "token") is None
    assert elsewhere.proof("http-01", "token") is None
    here.put_proof(Proof("http-01", "other", "x"))
    clock.advance(3_600)
    assert elsewhere.proof("http-01", "other") is None


def test_newer_proof_in_the_same_place_stays(memory: Memory) -> None:
    """Of two orders for one name, the first to end does not delete the other's proof."""
    one, two = Store(memory, UNSEALED), Store(memory, UNSEALED)
    first, second = (Proof("tls-alpn-01", "a.test", digest) for digest in ("11", "22"))
    one.put_proof(first)
    two.put_proof(second)
    one.delete_proof(first)
    assert two.local_proof("tls-alpn-01", "a.test") == "22"
    assert one.proof("tls-alpn-01", "a.test") == "22"


def test_backoff_of_a_name_and_of_a_ca(memory: Memory) -> None:
    """Both are kept under keys of their own, and forgotten on their own."""
    store = Store(memory, UNSEALED)
    store.save_backoff(NAME, Backoff(1, 2.0, "dns"))
    store.save_backoff(DIRECTORY, Backoff(3, 4.0, "down"))
    assert store.backoff(NAME) == Backoff(1, 2.0, "dns")
    store.delete_backoff(NAME)
    assert store.backoff(NAME) is None
    assert store.backoff(DIRECTORY) == Backoff(3, 4.0, "down")
    memory.put(memory.keys("backoffs/")[0], b"junk")
    assert store.backoff(DIRECTORY) is None


def test_backoffs_that_hold(memory: Memory) -> None:
    """Expired ones are left out, and a known one is not read again before it ends."""
    store, known = Store(memory, UNSEALED), Backoff(9, EPOCH + 9, "known")
    store.save_backoff(NAME, Backoff(1, EPOCH + 1, "dns"))
    store.save_backoff("old.test", Backoff(1, EPOCH, "ended"))
    store.save_backoff(DIRECTORY, Backoff(3, EPOCH + 3, "down"))

    assert store.backoffs({}, EPOCH, limit=10) == {
        NAME: Backoff(1, EPOCH + 1, "dns"),
        key_part(DIRECTORY): Backoff(3, EPOCH + 3, "down"),
    }
    assert store.backoffs({NAME: known, "gone.test": known}, EPOCH, limit=10)[NAME] == known
    assert len(store.backoffs({}, EPOCH, limit=1)) == 1


def test_url_of_the_account(memory: Memory) -> None:
    """None without an account, before the CA has answered, and for a record that is sealed or broken."""
    store = Store(memory, UNSEALED)
    assert store.account_uri(DIRECTORY) is None
    store.save_account(Account(DIRECTORY, "thumbprint"))
    assert store.account_uri(DIRECTORY) is None
    store.save_account(Account(DIRECTORY, "thumbprint", "https://ca.test/1"))
    assert store.account_uri(DIRECTORY) == "https://ca.test/1"
    sealed = Store(memory, RecordCipher([Fernet.generate_key().decode()]))
    sealed.save_account(Account(DIRECTORY, "thumbprint", "https://ca.test/1", "{}"))
    assert store.account_uri(DIRECTORY) is None
    memory.put(memory.keys("accounts/")[0], b"junk")
    assert store.account_uri(DIRECTORY) is None


def test_lease_is_held_by_one_and_freed_by_its_owner_alone(memory: Memory, clock: Clock) -> None:
    """A lease that ran out and was taken by another is not freed by its first owner."""
    first = Lease.acquire(memory, NAME, "node 1")
    assert first is not None
    assert Lease.acquire(memory, NAME, "node 2") is None
    clock.advance(LEASE_TTL - 1)
    assert first.extend()
    clock.advance(LEASE_TTL - 1)
    assert Lease.acquire(memory, NAME, "node 2") is None
    clock.advance(1)
    second = Lease.acquire(memory, NAME, "node 2")
    assert second is not None
    assert not first.extend()
    first.release()
    assert second.extend()
    second.release()
    assert Lease.acquire(memory, NAME, "node 1") is not None


@pytest.mark.parametrize("step", [60, 59 * 60, 3_600, 86_400])
def test_calendar_lists_up_to_the_minute(memory: Memory, step: int) -> None:
    """A pass reads the minutes that have come, in order, and no later one."""
    calendar = RenewalSchedule(memory)
    entries = [ScheduledCheck(ServerName(f"n{n}.test"), EPOCH + n * step) for n in range(5)]
    for entry in reversed(entries):
        calendar.add(entry)
    assert list(calendar.due_by(EPOCH + 2 * step)) == entries[:3]
    calendar.move(entries[0], EPOCH + 4 * step)
    calendar.remove(entries[1])
    assert list(calendar.due_by(EPOCH + 2 * step)) == [entries[2]]
    calendar.move(entries[2], entries[2].at + 1)
    assert list(calendar.due_by(EPOCH + 2 * step)) == [ScheduledCheck(entries[2].id, entries[2].at + 1)]


def test_calendar_pages_through_a_full_minute(memory: Memory) -> None:
    """A minute with more entries than a page is read whole, and while entries go."""
    calendar = RenewalSchedule(memory)
    for n in range(450):
        calendar.add(ScheduledCheck(ServerName(f"n{n}.test"), EPOCH + n % 60))
    seen = set()
    for entry in calendar.due_by(EPOCH):
        seen.add(entry.id)
        calendar.remove(entry)
    assert len(seen) == 450


def test_broken_calendar_entry_is_due_at_its_minute(memory: Memory) -> None:
    """The key alone says enough: junk in the value loses no certificate."""
    calendar = RenewalSchedule(memory)
    entry = ScheduledCheck(NAME, EPOCH + 137)
    memory.put(entry.key, b"junk")
    assert list(calendar.due_by(EPOCH + 137)) == [ScheduledCheck(NAME, EPOCH + 120)]


def test_key_that_is_no_entry_hides_no_entry(memory: Memory) -> None:
    """A foreign key in the calendar does not hide any entry."""
    calendar = RenewalSchedule(memory)
    entry = ScheduledCheck(NAME, EPOCH)
    calendar.add(entry)
    for key in ("calendar/0", "calendar/00000000/a.test", "calendar/00000000/x~a.test"):
        memory.put(key, b"1")
    assert list(calendar.due_by(EPOCH)) == [entry]


def test_renewal_info_belongs_to_one_certificate(memory: Memory) -> None:
    """What the CA said about the previous certificate does not count, nor does an unreadable record."""
    calendar = RenewalSchedule(memory)
    info = RenewalInfo(1.0, 2.0, 3.0, "https://ca.test/why")
    calendar.save_renewal_info(NAME, "id.1", info)
    assert calendar.renewal_info(NAME, "id.1") == info
    assert calendar.renewal_info(NAME, "id.2") is None
    memory.put(f"renewal-info/{NAME}", b'{"id": "id.1", "info": {}}')
    assert calendar.renewal_info(NAME, "id.1") is None
    memory.put(f"renewal-info/{NAME}", b"[]")
    assert calendar.renewal_info(NAME, "id.1") is None
    calendar.save_renewal_info(NAME, "id.1", info)
    calendar.forget(ScheduledCheck(NAME, EPOCH))
    assert calendar.renewal_info(NAME, "id.1") is None


def test_two_leases_of_one_node_are_two(memory: Memory) -> None:
    """One that ran out and was taken again by the same node is not the first owner's any more."""
    first = Lease.acquire(memory, NAME, "node")
    assert first is not None
    memory.delete(first.key)
    second = Lease.acquire(memory, NAME, "node")
    assert second is not None
    assert not first.extend()
    first.release()
    assert second.extend()


def test_proof_of_a_later_order_outlives_the_end_of_an_earlier_one(memory: Memory) -> None:
    """Both have one location: the validator of the later order still finds its proof, on this node and on others."""
    store, others = Store(memory, UNSEALED), Store(memory, UNSEALED)
    earlier, later = (Proof("http-01", "token", value) for value in ("earlier", "later"))
    store.put_proof(earlier)
    store.put_proof(later)
    store.delete_proof(earlier)
    assert (store.local_proof("http-01", "token"), others.proof("http-01", "token")) == ("later", "later")
    store.delete_proof(later)
    assert (store.local_proof("http-01", "token"), others.proof("http-01", "token")) == (None, None)


def test_backoff_that_has_ended_here_and_was_prolonged_elsewhere_is_listed(memory: Memory) -> None:
    """What this node knows of it is over, so it is read again."""
    store = Store(memory, UNSEALED)
    known, stored = Backoff(1, EPOCH - 1, "no"), Backoff(2, EPOCH + 600, "no")
    store.save_backoff(NAME, stored)
    assert store.backoffs({NAME: known}, EPOCH, limit=10) == {NAME: stored}
    assert store.backoffs({NAME: stored}, EPOCH, limit=10) == {NAME: stored}


def test_account_of_an_operators_own_key_is_replaced_when_the_key_is_no_longer_set(memory: Memory) -> None:
    """Its record holds no key, so nothing could be signed with it."""
    store = Store(memory, UNSEALED)
    store.save_account(Account(DIRECTORY, "own", uri="https://ca.test/1"))
    made = Account(DIRECTORY, "made", key="{}")
    assert store.claim_account(made) == made == store.account(DIRECTORY)


def test_records_of_strangers_keep_no_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each is warned of once, and what is remembered of that stays bounded."""
    monkeypatch.setattr("mitmproxy_acme.store.record_warnings._MOST", 10)
    warnings = RecordWarnings()
    for number in range(100):
        for _ in range(2):
            warnings.warn_once(f"key {number}", b"x", "%s is broken", number)
    assert len(caplog.records) == 100
    assert len(warnings._logged) <= 10


def test_lease_that_has_ended_frees_and_extends_no_later_one(memory: Memory, clock: Clock) -> None:
    """Not even of the same node and process: of two workers with one name, or of two orders of one worker."""
    earlier = Lease.acquire(memory, NAME, "node")
    assert earlier is not None
    clock.advance(LEASE_TTL + 1)
    later = Lease.acquire(memory, NAME, "node")
    assert later is not None
    earlier.release()
    assert not earlier.extend()
    assert Lease.acquire(memory, NAME, "node") is None
    assert later.extend()


def test_lease_whose_record_is_damaged_is_somebodys(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for until it ends, as any other; the order does not fail for it."""
    assert Lease.acquire(memory, NAME, "node") is not None

    def corrupt(key: str) -> bytes:
        raise StorageCorrupt(key)

    monkeypatch.setattr(memory, "get", corrupt)
    assert Lease.acquire(memory, NAME, "other") is None
