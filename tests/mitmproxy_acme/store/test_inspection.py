"""What an inspection finds in a storage, and what a repair does about it, while others write there."""

from collections import Counter

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageCorrupt
from acme_storage.memory import Memory
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY, RenewalInfo, RenewBefore
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.expired_certificates import ExpiredCertificate, ExpiredCertificates
from mitmproxy_acme.store.inspection import Examined, Inspection, Trouble
from mitmproxy_acme.store.keys import name_scope
from mitmproxy_acme.store.nodes import Node, Nodes
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.repair import Repair, can_mend
from mitmproxy_acme.store.store import Slot, Store
from mitmproxy_acme.store.usage_marks import UsageMarks
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock, make_certificate

LIFE = 90 * DAY
GONE = ServerName("gone.example.test")


def put(storage: Memory, name: str, *, ends: float, listed: bool = True) -> None:
    certificate = make_certificate([name], now=EPOCH + ends - LIFE)
    Store(storage, UNSEALED).replace(Slot(None, None), certificate)
    if listed:
        RenewalSchedule(storage).add(ScheduledCheck(certificate.id, EPOCH + ends - 30 * DAY))


def inspect(storage: Memory, cipher: RecordCipher = UNSEALED) -> dict[str, Examined]:
    return {found.key: found for found in Inspection(storage, cipher, EPOCH).run()}


def troubles(storage: Memory, cipher: RecordCipher = UNSEALED) -> dict[str, Trouble]:
    return {key: found.trouble for key, found in inspect(storage, cipher).items() if found.trouble is not None}


def repair(storage: Memory, cipher: RecordCipher = UNSEALED) -> list[str]:
    mend = Repair(storage, RenewBefore(), lambda id: False, EPOCH).mend
    return [f"{done} {found.key}" for found in Inspection(storage, cipher, EPOCH).run() if (done := mend(found))]


def fill(storage: Memory) -> None:
    """Store a record of most kinds, none of them in trouble."""
    put(storage, "valid.example.test", ends=80 * DAY)
    put(storage, "soon.example.test", ends=DAY)
    put(storage, "old.example.test", ends=-DAY)
    put(storage, "idle.example.test", ends=-2 * DAY, listed=False)
    idle = Store(storage, UNSEALED).slot(ServerName("idle.example.test")).certificate
    assert idle is not None
    ExpiredCertificates(storage).add(ExpiredCertificate(idle.id, idle.not_after))
    marks = UsageMarks(storage)
    marks.note_obtained(idle.id, idle.begun)
    marks.pass_over(idle.id, idle.begun, idle.not_after)
    store = Store(storage, UNSEALED)
    store.save_account(Account(DIRECTORY, "thumb", uri="https://ca.test/1", key="a key"))
    store.save_backoff("new.example.test", Backoff(1, EPOCH + 60, "no"))
    store.save_backoff("valid.example.test", Backoff(1, EPOCH - 5 * DAY, "no"))
    store.save_backoff(DIRECTORY, Backoff(1, EPOCH - 5 * DAY, "down"))
    RenewalSchedule(storage).save_renewal_info(idle.id, "id", RenewalInfo(1, 2, 3))
    Nodes(storage).heartbeat(Node("n", "standalone", "1", "host", EPOCH), EPOCH)
    storage.put("calendar/00499999/00~coming.example.test", str(EPOCH + 60).encode())


def test_kinds_and_states(memory: Memory) -> None:
    """Each record has its kind, state and size, and a storage in order has no trouble."""
    fill(memory)

    found = inspect(memory)

    assert Counter((one.kind, one.state) for one in found.values()) == {
        ("accounts", ""): 1,
        ("backoffs", "active"): 1,
        ("backoffs", "ended"): 2,
        ("calendar", ""): 4,
        ("certificates", "valid"): 1,
        ("certificates", "expiring"): 1,
        ("certificates", "expired"): 1,
        ("certificates", "idle"): 1,
        ("expired", ""): 1,
        ("nodes", ""): 1,
        ("renewal-info", ""): 1,
        ("usage", ""): 1,
    }
    assert all(one.size == len(memory.get(one.key) or b"") for one in found.values())
    assert troubles(memory) == {}
    assert repair(memory) == []


def test_troubles_and_their_repair(memory: Memory) -> None:
    """Orphans and broken records go, what is unlisted is scheduled; the rest is reported, and stays byte for byte."""
    fill(memory)
    orphans = [f"renewal-info/{GONE}", f"usage/{GONE}", f"expired/00000001/00~{GONE}", f"calendar/00000001/00~{GONE}"]
    for key, value in zip(orphans, (b'{"info": {"ask_again": 1}}', _mark(), b"", b"3600"), strict=True):
        memory.put(key, value)
    Store(memory, UNSEALED).save_backoff(name_scope(GONE, DIRECTORY), Backoff(1, EPOCH - 2 * DAY, "no"))
    orphans.append(f"backoffs/{name_scope(GONE, DIRECTORY)}")
    put(memory, "unlisted.example.test", ends=80 * DAY, listed=False)
    put(memory, "lost.example.test", ends=-40 * DAY, listed=False)
    broken = ["certificates/broken.example.test", "backoffs/broken.example.test", "usage/broken.example.test"]
    for key in (*broken, "accounts/broken"):
        memory.put(key, b"{")
    sealing, sealed = RecordCipher([Fernet.generate_key().decode()]), "certificates/sealed.example.test"
    memory.put(sealed, sealing.seal(sealed, b"{}"))
    memory.put("certificates/later.example.test", b'{"version": 99}')
    memory.put("somebody/else", b"x")
    kept = ["accounts/broken", sealed, "certificates/later.example.test", "somebody/else"]
    before = {key: memory.get(key) for key in kept}

    assert troubles(memory) == {
        **dict.fromkeys(orphans, Trouble.ORPHANED),
        "certificates/unlisted.example.test": Trouble.UNLISTED,
        "certificates/lost.example.test": Trouble.UNLISTED,
        **dict.fromkeys([*broken, "accounts/broken"], Trouble.BROKEN),
        sealed: Trouble.LOCKED,
        "certificates/later.example.test": Trouble.LOCKED,
        "somebody/else": Trouble.FOREIGN,
    }
    assert sorted(repair(memory)) == sorted(
        [
            *(f"removed {key}" for key in (*orphans, *broken)),
            "scheduled certificates/unlisted.example.test",
            "listed as expired certificates/lost.example.test",
        ]
    )
    assert sorted(troubles(memory)) == sorted(kept)
    assert {key: memory.get(key) for key in kept} == before


def _mark() -> bytes:
    return b'{"begun": 1.0, "usage": "used", "check_at": 0.0}'


def test_clear_record_beside_a_storage_key_is_never_touched(memory: Memory) -> None:
    """With a key, a record of a stolen key in clear text is refused, and so it stays."""
    memory.put(f"compromised/{GONE}", b"{}")
    assert troubles(memory, RecordCipher([Fernet.generate_key().decode()])) == {f"compromised/{GONE}": Trouble.LOCKED}


def test_record_that_changes_meanwhile_stays(memory: Memory) -> None:
    """A proxy mends it first, or stores the certificate that an orphan lacked: nothing is removed."""
    memory.put("usage/a.example.test", b"{")
    memory.put(f"usage/{GONE}", _mark())
    found = inspect(memory)
    assert {one.trouble for one in found.values()} == {Trouble.BROKEN, Trouble.ORPHANED}
    memory.put("usage/a.example.test", _mark())
    put(memory, GONE, ends=DAY)

    mend = Repair(memory, RenewBefore(), lambda id: False, EPOCH).mend
    assert [mend(one) for one in found.values()] == ["", ""]
    assert memory.keys("usage/") == ["usage/a.example.test", f"usage/{GONE}"]


class Damaged(Memory):
    """Cannot read some of its records."""

    def get(self, key: str) -> bytes | None:
        if key.endswith("/damaged"):
            raise StorageCorrupt(f"{key} was not written by this store")
        return super().get(key)


def test_what_the_storage_cannot_read(clock: Clock) -> None:
    """It is broken. Its removal has no fence, so it is removed only where a proxy would write it again."""
    storage = Damaged(now=clock)
    keys = ["accounts/damaged", "certificates/damaged", "usage/damaged"]
    for key in keys:
        storage.put(key, b"?")

    found = inspect(storage)
    assert [found[key].trouble for key in keys] == [Trouble.BROKEN] * 3
    assert [can_mend(found[key]) for key in keys] == [False, False, True]
    assert repair(storage) == ["removed usage/damaged"]


def test_many_records_come_in_pages(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a page, each record is examined once, and joined with the others."""
    monkeypatch.setattr("mitmproxy_acme.store.inspection._PAGE", 7)
    record = make_certificate(["n.example.test"]).to_record()
    for number in range(100):
        memory.put(f"certificates/n{number}.example.test", record)
        memory.put(f"usage/n{number}.example.test", _mark())
        memory.put(f"usage/m{number}.example.test", _mark())
    found = list(Inspection(memory, UNSEALED, EPOCH).run())
    assert len(found) == len({one.key for one in found}) == 300
    assert Counter(one.trouble for one in found) == {Trouble.UNLISTED: 100, Trouble.ORPHANED: 100, None: 100}


def test_record_that_can_be_read_by_now_is_not_removed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage could not read it when it was inspected: it was written again meanwhile."""
    found = Examined("usage/a.test", "usage", "", 0, Trouble.BROKEN)
    memory.put(found.key, b"{}")
    assert Repair(memory, RenewBefore(), lambda id: False, EPOCH).mend(found) == ""
    assert memory.get(found.key) == b"{}"
