"""What a writer of the storage can put there: records of every kind, sealed ones, keys, and a backup's content."""

import base64
import io
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from acme_storage.checks import is_key
from acme_storage.consul_record import unpack as unpack_consul
from acme_storage.file_layout import Record as FileRecord
from acme_storage.file_layout import pack as pack_file
from acme_storage.file_layout import path_of as file_path_of
from acme_storage.file_layout import unpack as unpack_file
from acme_storage.memory import Memory
from acme_storage.vault_record import unpack as unpack_vault
from mitmproxy_acme.admin.documents import describe_history, timestamp
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import CertificateError, RecordRefused, SourceError
from mitmproxy_acme.core.process_identity import ProcessIdentity
from mitmproxy_acme.store import keys
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.event_log import LoggedEvent
from mitmproxy_acme.store.expired_certificates import ExpiredCertificate, Walk
from mitmproxy_acme.store.nodes import Node
from mitmproxy_acme.store.rate_limiter import Bucket
from mitmproxy_acme.store.renewal_schedule import ScheduledCheck
from mitmproxy_acme.store.transfer.backup import BackupSource
from mitmproxy_acme.store.transfer.encrypted_file import EncryptedReader, EncryptedWriter
from mitmproxy_acme.store.transfer.transfer import Transfer, TransferOptions
from mitmproxy_acme.store.usage_marks import Usage, UsageMark
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock

from ..mutators import behind_line, json_mutator, text_mutator, within
from ..target import Target
from .records import EVENT, FIELDS, ID, PARTS_OF_KEYS, RECORDS, STORAGE_KEY, cheap


def record(data: bytes) -> None:
    """One record by its kind: what is accepted is written again as it was read, and can be shown."""
    name, value = behind_line(data)
    read = _READERS.get(name.strip().decode("ascii", "replace"))
    if read is not None:
        read(value)


def _account(value: bytes) -> None:
    try:
        account = Account.from_record(value)
    except (CertificateError, RecordRefused):
        return
    assert Account.from_record(account.to_record()) == account
    assert all(isinstance(text, str) for text in (account.key, account.uri, account.directory))


def _same[T](read: Callable[[bytes], T | None]) -> Callable[[bytes], None]:
    """Return a reader whose records, if they are read at all, come back the same."""

    def run(value: bytes) -> None:
        found: Any = read(value)
        if found is not None:
            assert read(found.to_record()) == found

    return run


def _backoff(value: bytes) -> None:
    found = Backoff.from_record(value)
    if found is not None:
        assert Backoff.from_record(found.to_record()) == found
        timestamp(found.until), timestamp(found.since)
        assert found.reason.isprintable()


def _event(value: bytes) -> None:
    found = LoggedEvent.from_record(EVENT, value)
    if found is not None:
        assert LoggedEvent.from_record(EVENT, found.to_record()) == found
        json.dumps(describe_history([found])).encode()


def _bucket(value: bytes) -> None:
    found = Bucket.from_record(value)
    assert Bucket.from_record(found.to_record()) == found
    timestamp(found.full_at)


def _walk(value: bytes) -> None:
    found = Walk.from_record(value)
    assert Walk.from_record(found.to_record()) == found
    assert not found.after or is_key(found.after)  # it is sent to the storage


def _node(value: bytes) -> None:
    found = Node.from_record(value)
    if found is not None:
        assert Node.from_record(found.to_record(found.since)) == found
        timestamp(found.since)
        assert all(text.isprintable() for text in (found.id, found.role, found.version, found.host))


def _process(value: bytes) -> None:
    found = ProcessIdentity.parse(value.decode("ascii", "replace"))
    assert found is None or ProcessIdentity.parse(str(found)) == found


_READERS: dict[str, Callable[[bytes], None]] = {
    "account": _account,
    "backoff": _backoff,
    "bucket": _bucket,
    "event": _event,
    "node": _node,
    "process": _process,
    "usage": _same(UsageMark.from_record),
    "walk": _walk,
}
_EXAMPLES = {
    "account": keys.account_key(DIRECTORY),
    "backoff": keys.backoff_key(ID),
    "bucket": keys.budget_key(DIRECTORY, "duplicates", "x"),
    "event": keys.event_key(EVENT),
    "node": keys.node_key("control", "n1"),
    "usage": keys.usage_key(ID),
    "walk": keys.housekeeping_key(),
}


def key_of_record(data: bytes) -> None:
    """Keys that others wrote are read back exactly as ours are spelt, or refused with ValueError."""
    text = data.decode("ascii", "replace")
    if not is_key(text):
        return
    with suppress(ValueError):
        minute, id = keys.parse_minute_key(text)
        assert text in (keys.calendar_key(minute, id), keys.expired_key(minute, id))
        timestamp(60.0 * minute)
        assert ScheduledCheck(id, minute * 60).key == keys.calendar_key(minute, id)
        assert ExpiredCertificate(id, minute * 60).key == keys.expired_key(minute, id)
    with suppress(ValueError):
        assert keys.event_key(keys.parse_event_key(text)) == text
    with suppress(ValueError):
        keys.parse_change_key(text)
    with suppress(ValueError):
        assert keys.parse_change_time(text) >= 0
    assert "/" not in keys.key_part(text) or "/" in text
    unsealed = RecordCipher([STORAGE_KEY]).verify_key(text)
    assert unsealed is None or RecordCipher([STORAGE_KEY]).sign_key(unsealed) == text
    assert unpack_file(text, pack_file(text, FileRecord(data, 1.0))) == FileRecord(data, 1.0)
    assert len(file_path_of(text)) <= 4 * len(text) + 300


@cache
def _cipher() -> RecordCipher:
    return RecordCipher([STORAGE_KEY])


def sealed(data: bytes) -> None:
    """A record under a key, with and without keys to open it: it is opened, or refused by one of two errors."""
    line, value = behind_line(data)
    key = line.strip().decode("ascii", "replace")
    if not is_key(key):
        return
    for cipher in (_cipher(), UNSEALED, RecordCipher([STORAGE_KEY], account_keys=[STORAGE_KEY], sealed_only=True)):
        with suppress(CertificateError, RecordRefused):
            cipher.is_current(key, value)
        with suppress(CertificateError, RecordRefused):
            opened = cipher.open(key, value)
            assert cipher is UNSEALED or cipher.open(key, cipher.seal(key, opened)) == opened


def store_answer(data: bytes) -> None:
    """What the stores themselves make of a foreign file or answer."""
    with suppress(ValueError):
        found = unpack_file("a/b", data)
        assert found is None or pack_file("a/b", found) == data
    unpack_consul("a/b", {"Value": data, "Flags": 1, "ModifyIndex": 2})
    with suppress(ValueError, RecursionError):
        unpack_vault(1, json.loads(data))


def backup(data: bytes) -> None:
    """Lines in a backup, which only who knows the passphrase can write: refused as a whole, or restored."""
    file = io.BytesIO()
    writer = EncryptedWriter(file, cheap)
    writer.write(data)
    writer.close()
    try:
        source = BackupSource(EncryptedReader(file, cheap))
    except SourceError:
        return
    timestamp(source.facts.created)
    restored = Memory(now=Clock())
    list(Transfer(source, restored, UNSEALED, TransferOptions(), now=Clock()).run())


def backup_file(data: bytes) -> None:
    """The encrypted file itself, as anyone can change it."""
    with suppress(SourceError):
        BackupSource(EncryptedReader(io.BytesIO(data), cheap))


def _records() -> list[bytes]:
    made = [f"{kind}\n".encode() + RECORDS[key] for kind, key in _EXAMPLES.items()]
    return [*made, b"process\n01234567-89ab-cdef-0123-456789abcdef:1:2:3:4"]


def _sealed() -> list[bytes]:
    some = [key for key in RECORDS if key.startswith(("accounts/", "events/", "certificates/", "compromised/"))]
    made = [key.encode() + b"\n" + _cipher().seal(key, RECORDS[key]) for key in some]
    return [*made, *(key.encode() + b"\n" + RECORDS[key] for key in some)]


def _lines() -> list[bytes]:
    key, value = keys.usage_key(ID), UsageMark(EPOCH, Usage.USED).to_record()
    first = {"created": EPOCH, "release": "1"}
    line = {"key": key, "value": base64.b64encode(value).decode(), "end": None}
    return [b"".join(json.dumps(part).encode() + b"\n" for part in (first, line, {"records": 1}))]


def _files() -> list[bytes]:
    file = io.BytesIO()
    writer = EncryptedWriter(file, cheap)
    writer.write(_lines()[0])
    writer.close()
    return [file.getvalue()]


def _answers() -> list[bytes]:
    return [pack_file("a/b", FileRecord(b"x", 1.0)), b'{"value": "eA==", "expires": 0, "unique": "u", "removed": 0}']


_JSON = within(behind_line, json_mutator(FIELDS))
_KEYS = text_mutator((*RECORDS, *PARTS_OF_KEYS))
TARGETS = (
    Target("record", record, _records, [_JSON, within(behind_line, text_mutator())]),
    Target("key_of_record", key_of_record, lambda: [key.encode() for key in RECORDS], [_KEYS], longest=600),
    Target("sealed", sealed, _sealed, [_JSON]),
    Target(
        "store_answer", store_answer, _answers, [json_mutator(["value", "expires", "unique", "removed"])], longest=600
    ),
    Target(
        "backup",
        backup,
        _lines,
        [
            within(behind_line, json_mutator(["key", "value", "end", "records", *RECORDS])),
            text_mutator(['"end"', "null", "\n"]),
        ],
    ),
    Target("backup_file", backup_file, _files),
)
