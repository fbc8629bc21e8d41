"""What is sealed, what stays readable, and what happens if no key opens it."""

import base64
import json

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.errors import CertificateError, DecryptionFailed, RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.key_rotation import RotationOutcome, rotate
from mitmproxy_acme.store.keys import account_key
from mitmproxy_acme.store.store import Slot, Store
from tests.mitmproxy_acme.fakes import DIRECTORY, UNSEALED, make_certificate

NAME = ServerName("a.test")
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
CERTIFICATE = f"certificates/{NAME}"
ACCOUNT = Account(DIRECTORY, "thumbprint", "https://ca.test/acct/1", '{"d": "secret"}')


def put(memory: Memory, sealing: RecordCipher, *names: str) -> None:
    """Store the account, and a certificate for each name."""
    store = Store(memory, sealing)
    store.save_account(ACCOUNT)
    for name in names or (NAME,):
        assert store.replace(store.slot(ServerName(name)), make_certificate([name]))


def everything(memory: Memory) -> dict[str, bytes | None]:
    return {key: memory.get(key) for key in memory.keys("")}


def test_whole_records_are_sealed(memory: Memory) -> None:
    """Nothing of a certificate or an account can be read without a key; only the storage key shows what it is."""
    put(memory, RecordCipher([OLD]))
    for record in everything(memory).values():
        assert json.loads(record or b"").keys() == {"sealed", "key_id", "sealed_key"}
        assert not any(word in (record or b"") for word in (b"PRIVATE", b"CERTIFICATE", b"secret", b"ca.test"))

    store = Store(memory, RecordCipher([OLD]))
    assert store.slot(NAME).certificate is not None
    assert store.account(DIRECTORY) == ACCOUNT


def test_seal_is_never_the_same_twice() -> None:
    """Each record has a nonce of its own: who reads the storage does not see that one was written again."""
    sealing = RecordCipher([OLD])
    assert len({sealing.seal(CERTIFICATE, b"x") for _ in range(100)}) == 100


def test_known_record_opens() -> None:
    """The format and the derived keys stay what they are: records of this release are opened by later ones."""
    key = base64.urlsafe_b64encode(bytes(range(32))).decode()
    record = (
        b'{"sealed": 1, "key_id": "7427d43902f5d458", "sealed_key": "AAECAwQFBgcICQoLu+P4Jb3vuQEW5UMVdBtvwZzDiZWK"}'
    )
    assert RecordCipher([key]).open("certificates/a.test", record) == b"known"
    assert RecordCipher([key]).sign_key("requests/a.test") == "requests/a.test~bf99f490d5aa99e0cb8e1515388705f3"


def in_first_format(record: bytes, key: str) -> bytes:
    """Seal a record in clear as the first format had it: the private key alone, by Fernet."""
    fields = json.loads(record)
    secret = fields.pop("key")
    return json.dumps(fields | {"sealed_key": Fernet(key).encrypt(secret.encode()).decode()}).encode()


def test_first_format_is_read_and_replaced(memory: Memory) -> None:
    """A record of the format before whole records were sealed is used, and sealed whole at the next write."""
    put(memory, UNSEALED)
    for key, record in everything(memory).items():
        memory.put(key, in_first_format(record or b"", OLD))
    store = Store(memory, RecordCipher([NEW, OLD]))
    slot = store.slot(NAME)
    assert slot.certificate is not None
    assert store.account(DIRECTORY) == ACCOUNT
    assert store.replace(slot, slot.certificate)
    assert RecordCipher([NEW]).is_current(CERTIFICATE, memory.get(CERTIFICATE) or b"")
    with pytest.raises(DecryptionFailed):
        Store(memory, RecordCipher([NEW])).account(DIRECTORY)


def test_sealed_only_refuses_what_was_not_sealed(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """Records in clear text or in the first format are neither used nor replaced; sealed again they are used."""
    put(memory, UNSEALED)
    account, _ = everything(memory)
    memory.put(account, in_first_format(memory.get(account) or b"", OLD))
    before = everything(memory)
    strict = Store(memory, RecordCipher([OLD], sealed_only=True))
    for call in (
        lambda: strict.slot(NAME),
        lambda: strict.account(DIRECTORY),
        lambda: strict.save_account(ACCOUNT),
        lambda: strict.claim_account(ACCOUNT),
    ):
        with pytest.raises(RecordRefused, match="is not sealed, and acme_storage_sealed_only requires it"):
            call()
    assert everything(memory) == before
    assert len(caplog.records) == 2
    assert {step.outcome for step in rotate(memory, RecordCipher([OLD]))} == {RotationOutcome.RESEALED}
    assert strict.slot(NAME).certificate is not None
    assert strict.account(DIRECTORY) == ACCOUNT


def test_each_key_opens_and_the_newest_seals(memory: Memory) -> None:
    """With a key put in front old records are read, and new ones need the new key."""
    put(memory, RecordCipher([OLD]))
    both = Store(memory, RecordCipher([NEW, OLD]))
    slot = both.slot(NAME)
    assert slot.certificate is not None
    assert both.replace(slot, make_certificate([NAME]))
    assert Store(memory, RecordCipher([NEW])).slot(NAME).certificate is not None
    assert both.account(DIRECTORY) == ACCOUNT
    both.save_account(ACCOUNT)
    assert Store(memory, RecordCipher([NEW])).account(DIRECTORY) == ACCOUNT


def test_records_in_clear_are_read_and_sealed_at_the_next_write(memory: Memory) -> None:
    """A key may be set at any time: what was stored before it is used as it is."""
    put(memory, UNSEALED)
    store = Store(memory, RecordCipher([NEW]))
    slot = store.slot(NAME)
    assert slot.certificate is not None
    assert store.account(DIRECTORY) == ACCOUNT
    assert store.replace(slot, slot.certificate)
    assert b"PRIVATE" not in (memory.get(CERTIFICATE) or b"")


@pytest.mark.parametrize(
    ("sealing", "said"),
    [
        (UNSEALED, "is sealed but acme_storage_key is not set: set the key that sealed it"),
        (RecordCipher([NEW]), "is sealed by a key that acme_storage_key lacks: add the key that sealed it"),
    ],
    ids=["no key", "wrong key"],
)
def test_what_no_key_opens_is_never_written_over(
    memory: Memory, sealing: RecordCipher, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every path that reads or would replace a record says what is wrong, logs it once, and changes no byte."""
    put(memory, RecordCipher([OLD]))
    before = everything(memory)
    store = Store(memory, sealing)
    for call in (
        lambda: store.slot(NAME),
        lambda: store.verify_keys(accounts=True),
        lambda: store.account(DIRECTORY),
        lambda: store.claim_account(Account(DIRECTORY, "new", key='{"d": "new"}')),
        lambda: store.save_account(Account(DIRECTORY, "own", "https://ca.test/acct/2")),
    ):
        for _ in range(2):
            with pytest.raises(DecryptionFailed, match=said):
                call()
    assert everything(memory) == before
    assert len(caplog.records) == 2  # the certificate's and the account's
    assert caplog.text.count(f"the record {CERTIFICATE} {said}") == 1
    assert OLD not in caplog.text
    assert NEW not in caplog.text


@pytest.mark.parametrize("token", ["", "gAAAA", "é", "\ud800", 5, ["x"]])
def test_seal_that_makes_no_sense_counts_as_sealed(token: object) -> None:
    """Whatever damaged the sealed key, its record is a person's to give up."""
    with pytest.raises(DecryptionFailed):
        RecordCipher([OLD]).open(CERTIFICATE, json.dumps({"sealed_key": token}).encode())


def test_broken_record_is_broken_sealed_or_not(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """A record that a key opens but is no certificate counts as absent, like junk."""
    sealing = RecordCipher([OLD])
    store = Store(memory, sealing)
    put(memory, sealing)
    (account,) = memory.keys("accounts/")
    record = memory.get(CERTIFICATE) or b""
    for broken in (sealing.seal(CERTIFICATE, b"nonsense"), record[:-20], record[:30], b"[]", b"\xff", b'{"key": 1}'):
        memory.put(CERTIFICATE, broken)
        assert store.slot(NAME).certificate is None
        memory.put(account, broken)
        assert store.account(DIRECTORY) is None
    assert "is ordered again" in caplog.text
    store.verify_keys(accounts=True)


def test_sealing_never_shows_a_key() -> None:
    """A sealing can be logged."""
    assert OLD not in repr(RecordCipher([OLD]))
    assert OLD not in repr(vars(RecordCipher([OLD])))


LATER = {
    "certificate": ("certificates/a.test", b'{"version": 2, "chains": ["other"]}'),
    "certificate as before": ("certificates/a.test", b'{"version": 2, "ca": "", "chain": "", "key": "x"}'),
    "certificate of a far version": ("certificates/a.test", b'{"version": 1e300, "key": "x"}'),
    "sealed in a later format": ("certificates/a.test", b'{"sealed": 2, "by": "other"}'),
    "sealed in a later format, without blanks": ("certificates/a.test", b'{"sealed":2,"by":"other"}'),
    "sealed in a later format, in other order": ("certificates/a.test", b'{"by": "other", "sealed": 2}'),
}


@pytest.mark.parametrize(("key", "record"), LATER.values(), ids=LATER)
@pytest.mark.parametrize("sealing", [UNSEALED, RecordCipher([OLD])], ids=["no key", "key"])
def test_record_of_a_later_release_is_left_alone(
    memory: Memory, caplog: pytest.LogCaptureFixture, sealing: RecordCipher, key: str, record: bytes
) -> None:
    """In a rolling upgrade the node of the earlier release destroys nothing, and logs each record once."""
    memory.put(key, record)
    store = Store(memory, sealing)
    for _ in range(3):
        with pytest.raises(RecordRefused, match="written by a later release of this addon; upgrade this node too"):
            store.slot(NAME)
    assert memory.get(key) == record
    assert len(caplog.records) == 1
    assert [step.outcome for step in rotate(memory, RecordCipher([OLD]))] == [RotationOutcome.UNREADABLE]
    assert memory.get(key) == record


def test_account_of_a_later_release_is_left_alone(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """No account is created in its place."""
    key, record = account_key(DIRECTORY), b'{"version": 2, "key": "x"}'
    memory.put(key, record)
    store = Store(memory, UNSEALED)
    with pytest.raises(RecordRefused, match="later release"):
        store.account(DIRECTORY)
    with pytest.raises(RecordRefused, match="later release"):
        store.claim_account(ACCOUNT)
    with pytest.raises(RecordRefused, match="later release"):
        store.save_account(ACCOUNT)
    assert store.account_uri(DIRECTORY) is None
    assert memory.get(key) == record
    assert len(caplog.records) == 1


def test_stolen_key_of_a_later_release_is_left_alone(memory: Memory) -> None:
    """It is that release's to revoke."""
    memory.put(f"compromised/{NAME}", b'{"version": 2, "compromised": {}}')
    with pytest.raises(RecordRefused, match="later release"):
        Store(memory, UNSEALED).compromised(NAME)


def test_later_record_in_a_seal_is_left_alone(memory: Memory) -> None:
    """The version inside a seal counts too."""
    sealing = RecordCipher([OLD])
    memory.put(CERTIFICATE, sealing.seal(CERTIFICATE, b'{"version": 2}'))
    with pytest.raises(RecordRefused, match="later release"):
        Store(memory, sealing).slot(NAME)


def test_accounts_have_a_key_of_their_own(memory: Memory) -> None:
    """With it the key that data nodes share opens and forges no account, and no stolen key to be revoked."""
    control = Store(memory, RecordCipher([OLD], account_keys=[NEW]))
    control.save_account(ACCOUNT)
    control.save_compromised(make_certificate([NAME]))
    assert control.replace(control.slot(NAME), make_certificate([NAME]))

    data = Store(memory, RecordCipher([OLD]))
    assert data.slot(NAME).certificate is not None
    with pytest.raises(
        DecryptionFailed, match=r"by a key that acme_storage_key lacks: .* or in acme_account_storage_key"
    ):
        data.account(DIRECTORY)
    with pytest.raises(DecryptionFailed):
        data.compromised(NAME)
    assert control.account(DIRECTORY) == ACCOUNT
    with pytest.raises(DecryptionFailed, match="by a key that acme_account_storage_key lacks"):
        Store(memory, RecordCipher([OLD], account_keys=[OLD])).account(DIRECTORY)


def test_accounts_move_to_their_own_key(memory: Memory) -> None:
    """Accounts that acme_storage_key sealed are used until they are sealed again; not with sealed only."""
    Store(memory, RecordCipher([OLD])).save_account(ACCOUNT)
    lax, strict = (RecordCipher([OLD], account_keys=[NEW], sealed_only=only) for only in (False, True))
    assert Store(memory, lax).account(DIRECTORY) == ACCOUNT
    with pytest.raises(DecryptionFailed):
        Store(memory, strict).account(DIRECTORY)
    assert [step.outcome for step in rotate(memory, lax)] == [RotationOutcome.RESEALED]
    assert [step.outcome for step in rotate(memory, lax)] == [RotationOutcome.CURRENT]
    assert Store(memory, strict).account(DIRECTORY) == ACCOUNT
    with pytest.raises(DecryptionFailed):
        Store(memory, RecordCipher([OLD])).account(DIRECTORY)


def test_accounts_alone_may_be_sealed(memory: Memory) -> None:
    """A key for accounts alone leaves certificates in clear, and a rotation says nothing of them."""
    put(memory, UNSEALED)
    sealing = RecordCipher((), account_keys=[NEW])
    assert Store(memory, sealing).slot(NAME).certificate is not None
    assert sorted(step.outcome.name for step in rotate(memory, sealing)) == ["NOTHING", "RESEALED"]
    assert Store(memory, sealing).account(DIRECTORY) == ACCOUNT


_FIXED = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_DATA = b"YwD9U12pzQ1ig9jQUP2ZKF7gBBeO33gz2ZYx67LgrsVM37JcBwF4pN1PkWcK"
_SEALED = b'{"sealed": 1, "key_id": "23ebe385195af6de", "sealed_key": "' + _DATA + b'"}'


def test_what_was_sealed_before_can_be_opened() -> None:
    """The keys that are derived from an acme_storage_key stay what they are, and so does a signed key."""
    cipher = RecordCipher([_FIXED])
    assert cipher.open("certificates/a.test", _SEALED) == b'{"key": "secret"}'
    assert cipher.sign_key("challenges/txt/a") == "challenges/txt/a~59fbb9f491e9f97c141dbd35f7a3c3e8"


def test_repr_of_a_key_is_its_id() -> None:
    """Nothing of the secret, nor of what is derived from it."""
    (own,) = RecordCipher([_FIXED])._keys
    assert repr(own) == f"_Key(id='{own.id}')"


def test_key_that_any_of_ours_signed_is_verified() -> None:
    """As while the keys of a cluster are changed, one node after another."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    both = RecordCipher([new, old])
    for key in (old, new):
        signed = RecordCipher([key]).sign_key("requests/a.test")
        assert both.verify_key(signed) == "requests/a.test"
        assert signed in both.signed_keys("requests/a.test")
    assert both.verify_key(RecordCipher([Fernet.generate_key().decode()]).sign_key("requests/a.test")) is None


def test_record_that_was_changed_is_not_current() -> None:
    """Though the newest key sealed it: it is broken."""
    cipher, key = RecordCipher([_FIXED]), "certificates/a.test"
    sealed = cipher.seal(key, b"{}")
    assert cipher.is_current(key, sealed)
    with pytest.raises(CertificateError):
        cipher.is_current("certificates/b.test", sealed)


@pytest.mark.parametrize(
    ("kind", "accounts", "refused"),
    [("account", True, True), ("account", False, False), ("certificate", True, True), ("certificate", False, True)],
)
def test_wrong_key_is_noticed_early(memory: Memory, kind: str, accounts: bool, refused: bool) -> None:
    """By the first certificate, and where accounts are used by the first of these too."""
    sealing, other = (RecordCipher((Fernet.generate_key().decode(),)) for _ in range(2))
    if kind == "account":
        Store(memory, sealing).save_account(ACCOUNT)
    else:
        Store(memory, sealing).replace(Slot(None, None), make_certificate(["a.test"]))
    Store(memory, sealing).verify_keys(accounts=accounts)
    if refused:
        with pytest.raises(RecordRefused):
            Store(memory, other).verify_keys(accounts=accounts)
    else:
        Store(memory, other).verify_keys(accounts=accounts)
