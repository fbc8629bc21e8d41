"""A hostile record in a storage that every part of a node reads, copies and backs up."""

import io
import json
from contextlib import suppress

from acme_storage.checks import is_key
from acme_storage.memory import Memory
from mitmproxy_acme.admin.documents import describe_history, timestamp
from mitmproxy_acme.ca import known_cas
from mitmproxy_acme.core.errors import RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.event_log import EventLog, newest
from mitmproxy_acme.store.expired_certificates import ExpiredCertificates
from mitmproxy_acme.store.inspection import Inspection
from mitmproxy_acme.store.issuance_requests import IssuanceRequests
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.nodes import Nodes
from mitmproxy_acme.store.rate_limiter import RateLimiter
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule
from mitmproxy_acme.store.store import Store
from mitmproxy_acme.store.transfer.backup import BackupSource, write_backup
from mitmproxy_acme.store.transfer.encrypted_file import EncryptedReader, EncryptedWriter
from mitmproxy_acme.store.transfer.transfer import Transfer, TransferOptions
from mitmproxy_acme.store.usage_marks import UsageMarks
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock

from ..mutators import behind_line, json_mutator, text_mutator, within
from ..target import Target
from .records import FIELDS, ID, PARTS_OF_KEYS, RECORDS, cheap


def stored(data: bytes) -> None:
    """A hostile record in a storage that every part of a node reads: no part fails, and only what is his is hurt."""
    line, value = behind_line(data)
    key = line.strip().decode("ascii", "replace")
    if not is_key(key) or len(value) > 60_000:
        return
    clock = Clock()
    memory = Memory(now=clock)
    good = {
        other: record for other, record in RECORDS.items() if not other.startswith(("certificates/", "compromised/"))
    }
    for other, written in good.items():
        memory.put(other, written)
    memory.put(key, value)
    _read_all(memory, clock, key)
    _copy(memory, clock, key)


def _read_all(memory: Memory, clock: Clock, key: str) -> None:
    store = Store(memory, UNSEALED)
    with suppress(RecordRefused):
        store.account(DIRECTORY)
    with suppress(RecordRefused):
        store.slot(ID)
    with suppress(RecordRefused):
        store.compromised(ID)
    for backoff in store.backoffs({}, clock(), limit=100).values():
        timestamp(backoff.until)
    store.txt_records()
    store.proof("http-01", "t" * 43)
    store.proofs({("http-01", f"{number}" * 43) for number in range(6)})
    _read_lists(memory, clock)
    _read_limits(memory, clock)
    for node in Nodes(memory).list_up():
        timestamp(node.since)
    events = EventLog(memory, UNSEALED).read(clock(), {})
    json.dumps(describe_history(newest(events.values()))).encode()
    ChangeFeed(memory, "n1").read_new(clock())
    requests = IssuanceRequests(memory, UNSEALED)
    for id in requests.pending(clock()):
        requests.is_for_person(id)
    requests.ask(ServerName("b.example.test"))
    if (lease := Lease.acquire(memory, ID, "n1")) is not None:
        lease.release()
    usage = UsageMarks(memory)
    usage.note_used(ID, EPOCH)
    list(Inspection(memory, UNSEALED, clock()).run())


def _read_lists(memory: Memory, clock: Clock) -> None:
    """Entries of the lists lead to what they say, so that removing them makes the list shorter."""
    schedule, expired = RenewalSchedule(memory), ExpiredCertificates(memory)
    info = schedule.renewal_info(ID, "r")
    if info is not None:
        assert info.explanation_url.isprintable()
        timestamp(info.start + 0.5 * (info.end - info.start))
        info.is_current(clock())
        info.is_ordinary(clock())
    listed = set(memory.keys("calendar/"))
    due = list(schedule.due_by(clock()))
    for entry in due:
        timestamp(entry.at)
        assert entry.key in listed, (entry.key, listed)
        schedule.remove(entry)
    assert list(schedule.due_by(clock())) == []
    for ended in expired.ended_by(clock(), limit=10):
        timestamp(ended.ended)
        expired.forget(ended)
    assert expired.ended_by(clock(), limit=10) == []
    walk = expired.walk()
    Store(memory, UNSEALED).ids(after=walk.after, limit=10)


def _read_limits(memory: Memory, clock: Clock) -> None:
    limiter = RateLimiter(memory, DIRECTORY, known_cas.ALIASES["letsencrypt"].limits, clock)
    for left in limiter.remaining():
        timestamp(left.full_at)
        assert 0 <= left.left <= left.limit.capacity
    exceeded = limiter.check((ID,))
    if exceeded is not None:
        str(exceeded)
        timestamp(exceeded.until)
    limiter.take_order((ID,))
    limiter.count_certificate((ID,))


def _copy(memory: Memory, clock: Clock, key: str) -> None:
    """Write a backup and restore it; what is wrong with one record costs that one, not the others."""
    file = io.BytesIO()
    list(write_backup(memory, UNSEALED, EncryptedWriter(file, cheap), clock))
    restored = Memory(now=clock)
    source = BackupSource(EncryptedReader(file, cheap))
    for step in Transfer(source, restored, UNSEALED, TransferOptions(), now=clock).run():
        assert step.key == key or restored.get(step.key) == memory.get(step.key), step


def _stored() -> list[bytes]:
    return [key.encode() + b"\n" + value for key, value in RECORDS.items()]


_KEYS = text_mutator((*RECORDS, *PARTS_OF_KEYS))
_JSON = within(behind_line, json_mutator(FIELDS))
TARGETS = (Target("stored", stored, _stored, [_JSON, _JSON, within(behind_line, text_mutator()), _KEYS], seconds=2.0),)
