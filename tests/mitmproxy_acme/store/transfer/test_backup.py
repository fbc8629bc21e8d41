"""A backup holds every record that moves, and restores by the rules of a transfer."""

import base64
import io
import json
import tracemalloc

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import BACKOFF_MEMORY, Backoff
from mitmproxy_acme.core.errors import SourceError
from mitmproxy_acme.core.renewal import LAST_TIME
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.store import Store
from mitmproxy_acme.store.transfer.backup import BackupSource, write_backup
from mitmproxy_acme.store.transfer.encrypted_file import EncryptedReader, EncryptedWriter
from mitmproxy_acme.store.transfer.steps import Step, StepOutcome
from mitmproxy_acme.store.transfer.transfer import Transfer, TransferOptions, count_keys
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock, make_certificate
from tests.mitmproxy_acme.store.transfer.test_encrypted_file import cheap, written
from tests.mitmproxy_acme.store.transfer.test_transfer import KEY, NAME, everything, fill, put

_FIRST = {"created": EPOCH, "release": "1"}
_RECORD = {"key": KEY, "value": "eA==", "end": None}
_LAST = {"records": 1}


@pytest.fixture
def other(clock: Clock) -> Memory:
    return Memory(now=clock)


def back_up(storage: Memory, clock: Clock, cipher: RecordCipher = UNSEALED) -> tuple[bytes, list[Step]]:
    file = io.BytesIO()
    steps = list(write_backup(storage, cipher, EncryptedWriter(file, cheap), clock))
    return file.getvalue(), steps


def opened(data: bytes) -> BackupSource:
    return BackupSource(EncryptedReader(io.BytesIO(data), cheap))


def restore(data: bytes, storage: Memory, clock: Clock, *, overwrite: bool = False) -> dict[str, StepOutcome]:
    source = opened(data)
    options = TransferOptions(overwrite=overwrite)
    return {step.key: step.outcome for step in Transfer(source, storage, UNSEALED, options, now=clock).run()}


@pytest.mark.parametrize("cipher", [UNSEALED, RecordCipher([Fernet.generate_key().decode()])], ids=["clear", "sealed"])
def test_backup_restores_everything(memory: Memory, other: Memory, clock: Clock, cipher: RecordCipher) -> None:
    fill(memory, clock, cipher)
    data, steps = back_up(memory, clock, cipher)
    assert b"PRIVATE" not in data

    restored = restore(data, other, clock)

    left = ("leases/", "requests/", "challenges/", "nodes/", "housekeeping/")
    assert everything(other) == {key: value for key, value in everything(memory).items() if not key.startswith(left)}
    assert restored == {step.key: step.outcome for step in steps}
    assert set(restored.values()) == {StepOutcome.COPIED}
    assert opened(data).facts.records == count_keys(opened(data)) == len(steps)
    assert opened(data).facts.created == EPOCH


def test_records_end_when_they_would_have_ended(memory: Memory, other: Memory, clock: Clock) -> None:
    """However long the backup waited; what is over by then is not restored."""
    fill(memory, clock)
    put(memory, make_certificate(["b.test"], now=EPOCH))
    Store(memory, UNSEALED).save_backoff("new.test", Backoff(1, clock() + 60, "no", clock()), 3_600)
    data, _ = back_up(memory, clock)
    clock.advance(7_200)
    restored = restore(data, other, clock)
    assert restored["backoffs/new.test"] is StepOutcome.ENDED
    assert restored["backoffs/b.test"] is StepOutcome.COPIED
    clock.time = EPOCH + BACKOFF_MEMORY + 1
    assert other.keys("backoffs/") == []


def test_restore_keeps_what_is_newer(memory: Memory, other: Memory, clock: Clock) -> None:
    """An old backup replaces nothing that a proxy has renewed since, unless it is told to."""
    put(memory, make_certificate([NAME], now=EPOCH))
    data, _ = back_up(memory, clock)
    newer = make_certificate([NAME], now=EPOCH + 86_400)
    put(other, newer)
    assert restore(data, other, clock) == {KEY: StepOutcome.KEPT}
    assert other.get(KEY) == newer.to_record()
    assert restore(data, other, clock, overwrite=True) == {KEY: StepOutcome.OVERWRITTEN}
    assert other.get(KEY) == memory.get(KEY)


def test_broken_records_are_left_out(memory: Memory, clock: Clock) -> None:
    fill(memory, clock)
    memory.put("certificates/bad.test", b"junk")
    data, steps = back_up(memory, clock)
    assert [step.key for step in steps if step.outcome is StepOutcome.BROKEN] == ["certificates/bad.test"]
    assert opened(data).facts.records == len(steps) - 1


def test_interrupted_backup_is_refused(memory: Memory, clock: Clock) -> None:
    """The writer was killed before it closed the file."""
    fill(memory, clock)
    file = io.BytesIO()
    steps = write_backup(memory, UNSEALED, EncryptedWriter(file, cheap), clock)
    next(steps)
    with pytest.raises(SourceError):
        opened(file.getvalue())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "does not say when|not complete"),
        ([_FIRST], "not complete"),
        ([_FIRST, _RECORD], "not complete"),
        ([_FIRST, _RECORD, {"records": 2}], "not complete"),
        ([_FIRST, _RECORD, _LAST, _RECORD], "behind its end"),
        ([_RECORD, _LAST], "not complete|does not say"),
        ([{"created": "x", "release": "1"}, _RECORD, _LAST], "does not say when"),
        ([{"created": -1, "release": "1"}, _RECORD, _LAST], "does not say when"),
        ([{"created": EPOCH, "release": 1}, _RECORD, _LAST], "does not say when"),
        ([{"created": EPOCH}, _RECORD, _LAST], "does not say when"),
        ([_FIRST, {"key": KEY}, _LAST], "without a key"),
        ([_FIRST, _RECORD | {"value": "?"}, _LAST], "without a key"),
        ([_FIRST, _RECORD | {"value": 7}, _LAST], "without a key"),
        ([_FIRST, _RECORD | {"end": "x"}, _LAST], "impossible end"),
        ([_FIRST, _RECORD | {"end": True}, _LAST], "impossible end"),
        ([_FIRST, _RECORD | {"end": -1}, _LAST], "impossible end"),
        ([_FIRST, _RECORD | {"key": "leases/a.test"}, _LAST], "this release does not know"),
        ([_FIRST, _RECORD | {"key": "later/a.test"}, _LAST], "this release does not know"),
        ([_FIRST, 7, _LAST], "not JSON"),
    ],
)
def test_content_that_no_release_writes_is_refused_as_a_whole(lines: list[object], why: str) -> None:
    """One who has the passphrase could write anything; nothing of it is restored."""
    data = written(*(json.dumps(line).encode() + b"\n" for line in lines))
    with pytest.raises(SourceError, match=why):
        opened(data)


def test_many_records_are_read_in_pages(other: Memory, clock: Clock) -> None:
    """Three thousand records are never in memory together."""
    value = base64.b64encode(json.dumps({"failures": 1, "until": EPOCH + 60, "reason": "x" * 900}).encode()).decode()
    file = io.BytesIO()
    writer = EncryptedWriter(file, cheap)
    writer.write(json.dumps(_FIRST).encode() + b"\n")
    for number in range(3_000):
        line = {"key": f"backoffs/n{number:05}.test", "value": value, "end": EPOCH + 600}
        writer.write(json.dumps(line).encode() + b"\n")
    writer.write(b'{"records": 3000}\n')
    writer.close()
    reader = EncryptedReader(file, cheap)

    tracemalloc.start()
    transfer = Transfer(BackupSource(reader), other, UNSEALED, TransferOptions(dry=True), now=clock)
    assert sum(1 for _ in transfer.run()) == 3_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 2_500_000  # half of what they are


def test_value_that_no_storage_takes_is_reported(other: Memory, clock: Clock) -> None:
    record = {"version": 1, "ca": "x" * 70_000, "chain": "", "key": ""}  # refused before anything else is looked at
    large = base64.b64encode(json.dumps(record | {"version": 9}).encode()).decode()
    lines = (_FIRST, {"key": KEY, "value": large, "end": None}, _LAST)
    data = written(*(json.dumps(line).encode() + b"\n" for line in lines))
    assert restore(data, other, clock) == {KEY: StepOutcome.FAILED}
    assert everything(other) == {}


def test_end_beyond_all_dates_is_the_last_one(memory: Memory, other: Memory, clock: Clock) -> None:
    """A certificate that does not end (RFC 5280 section 4.1.2.5) is kept a day longer: that has no date."""
    forever = make_certificate([NAME], lifetime=LAST_TIME - EPOCH)
    Store(memory, UNSEALED).save_compromised(forever)
    data, _ = back_up(memory, clock)

    assert restore(data, other, clock) == {f"compromised/{NAME}": StepOutcome.COPIED}
    assert everything(other) == everything(memory)


@pytest.mark.parametrize("line", [b"no JSON", b"[" * 20_000])
def test_line_that_is_no_json_is_refused(line: bytes) -> None:
    """However it is none."""
    with pytest.raises(SourceError, match="not JSON"):
        opened(written(json.dumps(_FIRST).encode() + b"\n", line + b"\n"))


def test_what_is_deleted_or_over_meanwhile_is_not_backed_up(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies go on; the records that are written are counted, and the backup is whole."""
    put(memory, make_certificate([NAME], now=clock()))
    memory.put("budgets/ca/orders/account", b'{"full_at": 1799999999, "scope": ""}')
    read = memory.get
    monkeypatch.setattr(memory, "get", lambda key: None if key == KEY else read(key))
    data, steps = back_up(memory, clock)
    assert [(step.key, step.outcome) for step in steps] == [("budgets/ca/orders/account", StepOutcome.ENDED)]
    assert opened(data).facts.records == 0


def test_kind_without_records_has_no_page(memory: Memory, clock: Clock) -> None:
    """And the others have theirs, wherever they are in the file."""
    fill(memory, clock)
    memory.delete(KEY)
    source = opened(back_up(memory, clock)[0])
    assert list(source.pages("certificates/")) == []
    assert [len(page) for page in source.pages("accounts/")] == [1]
    assert [len(page) for page in source.pages("usage/")] == [1]


def test_record_that_is_deleted_meanwhile_ends_no_backup(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind it are written."""
    for name in ("a.test", "b.test"):
        put(memory, make_certificate([name], now=clock()))
    read = memory.get
    monkeypatch.setattr(memory, "get", lambda key: None if key == "certificates/a.test" else read(key))
    data, steps = back_up(memory, clock)
    assert [step.key for step in steps] == ["certificates/b.test"]
    assert list(opened(data).pages("certificates/")) == [["certificates/b.test"]]
