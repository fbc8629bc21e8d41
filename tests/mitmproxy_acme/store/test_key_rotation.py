"""Every lasting record is sealed again while others read and write the same storage."""

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.key_rotation import RotationOutcome, rotate
from mitmproxy_acme.store.store import Slot, Store
from tests.mitmproxy_acme.fakes import DIRECTORY, UNSEALED, make_certificate
from tests.mitmproxy_acme.store.test_encryption import ACCOUNT, CERTIFICATE, NAME, NEW, OLD, everything, put


def outcomes(memory: Memory, *keys: str) -> dict[str, RotationOutcome]:
    return {step.key: step.outcome for step in rotate(memory, RecordCipher(keys))}


def test_rotation_seals_everything_by_the_newest_key(memory: Memory) -> None:
    """Records sealed by an older key, and those in clear text, then only need the new key; a second run changes
    nothing.
    """
    names = [f"n{n}.test" for n in range(450)]  # more than two pages
    put(memory, RecordCipher([OLD]), *names)
    assert Store(memory, UNSEALED).replace(Slot(None, None), make_certificate([NAME]))
    Store(memory, RecordCipher([OLD])).save_compromised(make_certificate([NAME]))
    memory.put("backoffs/a.test", b"untouched")

    first = outcomes(memory, NEW, OLD)

    assert len(first) == 453
    assert set(first.values()) == {RotationOutcome.RESEALED}
    after = everything(memory)
    assert set(outcomes(memory, NEW, OLD).values()) == {RotationOutcome.CURRENT}
    assert everything(memory) == after
    assert after["backoffs/a.test"] == b"untouched"
    store = Store(memory, RecordCipher([NEW]))
    assert all(store.slot(ServerName(name)).certificate for name in (*names, NAME))
    assert store.account(DIRECTORY) == ACCOUNT
    assert store.compromised(NAME) is not None


def test_rotation_leaves_what_it_cannot_open_and_goes_on(memory: Memory) -> None:
    """A record that is junk, or sealed by a lost key, is reported and left; the others are sealed."""
    put(memory, RecordCipher([Fernet.generate_key().decode()]), "lost.test")
    lost = memory.get("certificates/lost.test")
    memory.put("certificates/junk.test", b"{junk")
    assert Store(memory, UNSEALED).replace(Slot(None, None), make_certificate([NAME]))

    steps = {step.key: step for step in rotate(memory, RecordCipher([NEW]))}

    assert steps["certificates/lost.test"].outcome is RotationOutcome.UNREADABLE
    assert "sealed by a key that acme_storage_key lacks" in steps["certificates/lost.test"].why
    assert "the record is broken" in steps["certificates/junk.test"].why
    assert steps[CERTIFICATE].outcome is RotationOutcome.RESEALED
    assert memory.get("certificates/lost.test") == lost
    assert memory.get("certificates/junk.test") == b"{junk"


def test_rotation_vouches_for_no_stolen_key(memory: Memory) -> None:
    """Compromised certificates are always sealed; one that is not may be a copy of a certificate in use."""
    Store(memory, UNSEALED).save_compromised(make_certificate([NAME]))
    (step,) = rotate(memory, RecordCipher([NEW]))
    assert step.outcome is RotationOutcome.UNREADABLE
    assert "is not sealed, so anyone may have written it" in step.why


def test_rotation_loses_no_write_of_a_running_proxy(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is renewed between the read and the swap is read again."""
    put(memory, RecordCipher([OLD]))
    renewed, get = make_certificate([NAME]), memory.get

    def overtaken(key: str) -> bytes | None:
        record = get(key)
        if key == CERTIFICATE:
            monkeypatch.undo()
            proxy = Store(memory, RecordCipher([OLD]))
            assert proxy.replace(proxy.slot(NAME), renewed)
        return record

    monkeypatch.setattr(memory, "get", overtaken)
    assert outcomes(memory, NEW, OLD)[CERTIFICATE] is RotationOutcome.RESEALED
    stored = Store(memory, RecordCipher([NEW])).slot(NAME).certificate
    assert stored is not None
    assert stored.fingerprint == renewed.fingerprint


def test_rotation_makes_nothing_of_what_was_removed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is removed while it is being sealed does not come back."""
    put(memory, RecordCipher([OLD]))
    get = memory.get

    def removed(key: str) -> bytes | None:
        record = get(key)
        memory.delete(key)
        return record

    monkeypatch.setattr(memory, "get", removed)
    assert set(outcomes(memory, NEW, OLD).values()) == {RotationOutcome.NOTHING}
    assert memory.keys("") == []


def test_order_that_began_before_the_rotation_is_stored(memory: Memory) -> None:
    """The fence of a running order makes it read again, and then it writes."""
    put(memory, RecordCipher([OLD]))
    proxy = Store(memory, RecordCipher([NEW, OLD]))
    slot = proxy.slot(NAME)
    outcomes(memory, NEW, OLD)
    assert not proxy.replace(slot, make_certificate([NAME]))
    assert proxy.replace(proxy.slot(NAME), make_certificate([NAME]))
