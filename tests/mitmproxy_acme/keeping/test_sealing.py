"""What is sealed, what stays readable, and what happens where no key opens it."""

import json

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.account import Account
from mitmproxy_acme.errors import CertificateError, Sealed
from mitmproxy_acme.keeping.sealing import Sealing
from mitmproxy_acme.keeping.store import Store
from mitmproxy_acme.names import ServerName
from tests.mitmproxy_acme.fakes import DIRECTORY, UNSEALED, make_certificate

NAME = ServerName("a.test")
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
CERTIFICATE = f"certificates/{NAME}"
ACCOUNT = Account(DIRECTORY, "thumbprint", "https://ca.test/acct/1", '{"d": "secret"}')


def put(memory: Memory, sealing: Sealing, *names: str) -> None:
    """Store the account, and a certificate for each name."""
    store = Store(memory, sealing)
    store.save_account(ACCOUNT)
    for name in names or (NAME,):
        assert store.replace(store.slot(ServerName(name)), make_certificate([name]))


def everything(memory: Memory) -> dict[str, bytes | None]:
    return {key: memory.get(key) for key in memory.keys("")}


def test_only_the_private_key_is_sealed(memory: Memory) -> None:
    """Chain, CA and account URL can be read without a key; the private keys cannot, in any shape."""
    put(memory, Sealing([OLD]))
    records = {key: json.loads(record or b"") for key, record in everything(memory).items()}
    certificate, account = records.pop(CERTIFICATE), next(iter(records.values()))
    assert certificate.keys() == {"version", "ca", "chain", "sealed_key"}
    assert certificate["chain"].startswith("-----BEGIN CERTIFICATE")
    assert account.keys() == {"directory", "thumbprint", "uri", "contact", "sealed_key"}
    assert not any(word in str((certificate, account)) for word in ("PRIVATE", "secret"))

    store = Store(memory, Sealing([OLD]))
    assert store.slot(NAME).certificate is not None
    assert store.account(DIRECTORY) == ACCOUNT


def test_account_without_a_stored_key_has_nothing_to_seal() -> None:
    """Of an operator's own key only the thumbprint is kept, and that is no secret."""
    record = Account(DIRECTORY, "thumbprint").to_record()
    assert Sealing([OLD]).seal(record) == record


def test_each_key_opens_and_the_newest_seals(memory: Memory) -> None:
    """With a key put in front old records are read, and new ones need the new key."""
    put(memory, Sealing([OLD]))
    both = Store(memory, Sealing([NEW, OLD]))
    slot = both.slot(NAME)
    assert slot.certificate is not None
    assert both.replace(slot, make_certificate([NAME]))
    assert Store(memory, Sealing([NEW])).slot(NAME).certificate is not None
    assert both.account(DIRECTORY) == ACCOUNT
    both.save_account(ACCOUNT)
    assert Store(memory, Sealing([NEW])).account(DIRECTORY) == ACCOUNT


def test_records_in_clear_are_read_and_sealed_at_the_next_write(memory: Memory) -> None:
    """A key may be set at any time: what was stored before it is used as it is."""
    put(memory, UNSEALED)
    store = Store(memory, Sealing([NEW]))
    slot = store.slot(NAME)
    assert slot.certificate is not None
    assert store.account(DIRECTORY) == ACCOUNT
    assert store.replace(slot, slot.certificate)
    assert b"PRIVATE" not in (memory.get(CERTIFICATE) or b"")


@pytest.mark.parametrize(
    ("sealing", "said"),
    [
        (UNSEALED, "is sealed and acme_storage_key is not set: give the key that sealed it"),
        (Sealing([NEW]), "is sealed by none of the keys in acme_storage_key: add the one that sealed it"),
    ],
    ids=["no key", "wrong key"],
)
def test_what_no_key_opens_is_never_written_over(
    memory: Memory, sealing: Sealing, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every path that reads or would replace says what is wrong, logs each record once, and changes no byte."""
    put(memory, Sealing([OLD]))
    before = everything(memory)
    store = Store(memory, sealing)
    for call in (
        lambda: store.slot(NAME),
        store.look_at_seals,
        lambda: store.account(DIRECTORY),
        lambda: store.claim_account(Account(DIRECTORY, "new", key='{"d": "new"}')),
        lambda: store.save_account(Account(DIRECTORY, "own", "https://ca.test/acct/2")),
    ):
        for _ in range(2):
            with pytest.raises(Sealed, match=said):
                call()
    assert everything(memory) == before
    assert len(caplog.records) == 2  # the certificate's and the account's
    assert caplog.text.count(f"the record {CERTIFICATE} {said}") == 1
    assert OLD not in caplog.text
    assert NEW not in caplog.text


@pytest.mark.parametrize("token", ["", "gAAAA", "é", "\ud800", 5, ["x"]])
def test_seal_that_makes_no_sense_counts_as_sealed(token: object) -> None:
    """Whatever damaged the sealed key, its record is a person's to give up."""
    with pytest.raises(Sealed):
        Sealing([OLD]).open(json.dumps({"sealed_key": token}).encode(), "x")


def test_broken_record_is_broken_sealed_or_not(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """What a key opens and yet is no certificate, or is junk, counts as none, as ever."""
    store = Store(memory, Sealing([OLD]))
    put(memory, Sealing([OLD]))
    record = memory.get(CERTIFICATE) or b""
    for broken in (record.replace(b"BEGIN CERT", b"BEGIN NONSENSE"), record[:-20], b"[]", b"\xff", b'{"key": 1}'):
        memory.put(CERTIFICATE, broken)
        assert store.slot(NAME).certificate is None
        memory.put(next(iter(memory.keys("accounts/"))), broken)
        if b"BEGIN" not in broken:
            assert store.account(DIRECTORY) is None
    assert "will be ordered anew" in caplog.text
    store.look_at_seals()


@pytest.mark.parametrize("record", [b"junk", b"[]", b"{}", b'{"key": null}', b'{"key": "\xc3\xa9"}'])
def test_what_is_no_record_is_not_sealed(record: bytes) -> None:
    """Nothing is put into a seal that would not be a key when it comes out."""
    with pytest.raises(CertificateError):
        Sealing([OLD]).seal(record)


def test_sealing_never_shows_a_key() -> None:
    """A sealing can be logged."""
    assert OLD not in repr(Sealing([OLD]))
    assert OLD not in repr(vars(Sealing([OLD])))
