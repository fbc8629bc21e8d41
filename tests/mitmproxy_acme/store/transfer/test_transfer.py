"""A transfer copies what differs, keeps what is newer, and loses nothing of what others write meanwhile."""

import json
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, StorageCorrupt, StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import BACKOFF_MEMORY, Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.renewal import DAY, RenewalInfo
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.key_rotation import rotate
from mitmproxy_acme.store.keys import account_key, mark_key, name_scope
from mitmproxy_acme.store.nodes import Node, Nodes
from mitmproxy_acme.store.rate_limiter import RateLimiter
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Store
from mitmproxy_acme.store.transfer.record_copier import RecordCopier
from mitmproxy_acme.store.transfer.record_rules import rules_by_prefix
from mitmproxy_acme.store.transfer.source_changes import SourceChanges
from mitmproxy_acme.store.transfer.sources import StorageSource, missing_pages
from mitmproxy_acme.store.transfer.steps import WRITTEN, Step, StepOutcome
from mitmproxy_acme.store.transfer.transfer import Transfer, TransferOptions
from mitmproxy_acme.store.usage_marks import Usage, UsageMark, UsageMarks
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock, make_certificate

NAME = ServerName("a.test")
KEY = f"certificates/{NAME}"
ACCOUNT = Account(DIRECTORY, "thumb", "https://ca.test/acct/1", '{"d": "secret"}', "", "me@a.test", "kid", "hmac")
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def other(clock: Clock) -> Memory:
    """The destination; ``memory`` is the source."""
    return Memory(now=clock)


def everything(storage: Storage) -> dict[str, bytes | None]:
    return {key: storage.get(key) for key in storage.keys("")}


def put(storage: Storage, certificate: Certificate, cipher: RecordCipher = UNSEALED) -> bytes:
    record = cipher.seal(f"certificates/{certificate.id}", certificate.to_record())
    storage.put(f"certificates/{certificate.id}", record)
    return record


def fill(storage: Storage, clock: Clock, cipher: RecordCipher = UNSEALED) -> None:
    """Store one record of each kind that moves, and of some that do not."""
    store, certificate = Store(storage, cipher), make_certificate([NAME], now=clock())
    put(storage, certificate, cipher)
    store.save_account(ACCOUNT)
    store.save_compromised(certificate)
    store.save_backoff("b.test", Backoff(2, clock() + 600, "no", clock()))
    schedule = RenewalSchedule(storage)
    schedule.add(ScheduledCheck(NAME, clock() + 60 * DAY))
    storage.put("expired/00500000/01~old.test", b"")
    storage.put("housekeeping/walk", b"{}")
    schedule.save_renewal_info(NAME, "id", RenewalInfo(1, 2, clock() + 3_600))
    UsageMarks(storage).note_used(NAME, clock())
    RateLimiter(storage, DIRECTORY, Limits(orders=Limit(10, 3_600)), clock).take_order((NAME,))
    storage.put("leases/a.test", b"node 1", ttl=10)
    storage.put("requests/a.test", b"", ttl=30)
    storage.put("challenges/http-01/token", b"value", ttl=3_600)
    Nodes(storage).heartbeat(Node("n", "standalone", "1", "host", clock()), clock())


def transfer(
    source: Storage,
    destination: Storage,
    clock: Clock,
    *,
    cipher: RecordCipher = UNSEALED,
    dry: bool = False,
    overwrite: bool = False,
) -> Transfer:
    options = TransferOptions(dry=dry, overwrite=overwrite)
    return Transfer(StorageSource(source), destination, cipher, options, feed=source, now=clock)


def outcomes(steps: list[Step]) -> dict[str, StepOutcome]:
    return {step.key: step.outcome for step in steps}


def run(
    source: Storage, destination: Storage, clock: Clock, *, cipher: RecordCipher = UNSEALED, overwrite: bool = False
) -> dict[str, Step]:
    return {step.key: step for step in transfer(source, destination, clock, cipher=cipher, overwrite=overwrite).run()}


# What is copied


@pytest.mark.parametrize("cipher", [UNSEALED, RecordCipher([NEW])], ids=["clear", "sealed"])
def test_everything_that_moves_is_copied_byte_for_byte(
    memory: Memory, other: Memory, clock: Clock, cipher: RecordCipher
) -> None:
    """Certificates, accounts with their bindings, schedule, limits and backoffs; not leases, nodes and challenges."""
    fill(memory, clock, cipher)

    steps = run(memory, other, clock, cipher=cipher)

    left = ("leases/", "requests/", "challenges/", "nodes/", "housekeeping/")
    assert everything(other) == {key: value for key, value in everything(memory).items() if not key.startswith(left)}
    assert {key.partition("/")[0] for key in everything(other)} == {
        "accounts", "backoffs", "budgets", "calendar", "certificates", "compromised", "expired", "renewal-info",
        "usage",
    }  # fmt: skip
    assert {step.outcome for step in steps.values()} == {StepOutcome.COPIED}
    assert Store(other, cipher).account(DIRECTORY) == ACCOUNT


def test_sealed_records_need_no_key(memory: Memory, other: Memory, clock: Clock) -> None:
    """They are copied as they are, and the proxies that have the key open them there."""
    fill(memory, clock, RecordCipher([NEW]))

    run(memory, other, clock)

    assert other.get(KEY) == memory.get(KEY)
    assert Store(other, RecordCipher([NEW])).slot(NAME).certificate is not None


def test_a_second_run_copies_only_what_differs(memory: Memory, other: Memory, clock: Clock) -> None:
    fill(memory, clock)
    run(memory, other, clock)
    put(memory, make_certificate(["new.test"], now=clock()))

    second = run(memory, other, clock)

    assert [key for key, step in second.items() if step.outcome in WRITTEN] == ["certificates/new.test"]
    assert {step.outcome for step in second.values()} == {StepOutcome.COPIED, StepOutcome.UNCHANGED}


def test_dry_run_writes_nothing(memory: Memory, other: Memory, clock: Clock) -> None:
    fill(memory, clock)
    steps = list(transfer(memory, other, clock, dry=True).run())
    assert {step.outcome for step in steps} == {StepOutcome.COPIED}
    assert len(steps) == len(run(memory, other, clock))
    other_again = Memory(now=clock)
    list(transfer(memory, other_again, clock, dry=True).run())
    assert everything(other_again) == {}


# For how long


def test_records_keep_the_end_that_their_writer_gave(memory: Memory, other: Memory, clock: Clock) -> None:
    """A storage does not say when a record ends, so each kind's content does; none becomes permanent."""
    fill(memory, clock)
    Store(memory, UNSEALED).save_backoff("new.test", Backoff(1, clock() + 7_200, "no", clock()), 14_400)
    put(memory, make_certificate(["b.test"], now=clock()))
    clock.advance(100)
    run(memory, other, clock)
    budget = next(key for key in other.keys("budgets/"))
    full_at = json.loads(other.get(budget) or b"")["full_at"]

    clock.time = full_at - 1
    assert other.get(budget) is not None
    clock.time = full_at + 1
    assert other.get(budget) is None
    clock.time = EPOCH + 14_399
    assert other.get("backoffs/new.test") is not None
    clock.time = EPOCH + 14_401  # a new name's: twice its length
    assert other.get("backoffs/new.test") is None
    clock.time = EPOCH + BACKOFF_MEMORY - 1  # a name with a certificate
    assert other.get("backoffs/b.test") is not None
    clock.time = EPOCH + BACKOFF_MEMORY + 1
    assert other.get("backoffs/b.test") is None
    clock.time = EPOCH + 91 * DAY - 1
    assert other.keys("compromised/")
    clock.time = EPOCH + 91 * DAY + 1
    assert not other.keys("compromised/")
    assert {key.partition("/")[0] for key in everything(other)} == {
        "accounts", "calendar", "certificates", "expired", "renewal-info",
        "usage",
    }  # fmt: skip


def test_sealed_compromised_record_without_a_key_ends_too(memory: Memory, other: Memory, clock: Clock) -> None:
    fill(memory, clock, RecordCipher([NEW]))
    run(memory, other, clock)
    clock.advance(400 * DAY)
    assert not other.keys("compromised/")


def test_backoff_of_a_ca_is_remembered_for_a_month(memory: Memory, other: Memory, clock: Clock) -> None:
    store = Store(memory, UNSEALED)
    for scope in (DIRECTORY, name_scope("c.test", DIRECTORY)):
        store.save_backoff(scope, Backoff(1, clock() + 60, "no", clock()))
    put(memory, make_certificate(["c.test"], now=clock()))
    run(memory, other, clock)
    clock.advance(BACKOFF_MEMORY - 1)
    assert len(other.keys("backoffs/")) == 2
    clock.advance(2)
    assert not other.keys("backoffs/")


def test_what_is_over_is_not_copied(memory: Memory, other: Memory, clock: Clock) -> None:
    memory.put("budgets/ca/orders/account", json.dumps({"full_at": clock() - 1, "scope": ""}).encode())
    assert outcomes(list(transfer(memory, other, clock).run())) == {"budgets/ca/orders/account": StepOutcome.ENDED}
    assert everything(other) == {}


# Which of two counts


def _pair(memory: Memory, other: Memory, source: Certificate, destination: Certificate) -> tuple[bytes, bytes]:
    return put(memory, source), put(other, destination)


def test_newer_certificate_of_the_source_replaces(memory: Memory, other: Memory, clock: Clock) -> None:
    new, _ = _pair(memory, other, make_certificate([NAME], now=EPOCH), make_certificate([NAME], now=EPOCH - 30 * DAY))
    assert run(memory, other, clock)[KEY].outcome is StepOutcome.COPIED
    assert other.get(KEY) == new


@pytest.mark.parametrize(
    ("begun", "lifetime"), [(EPOCH, 90 * DAY), (EPOCH - 30 * DAY, 120 * DAY), (EPOCH - 60 * DAY, 200 * DAY)],
    ids=["issued later", "issued later, same end", "lasts longer"],
)  # fmt: skip
def test_newer_certificate_of_the_destination_stays(
    memory: Memory, other: Memory, clock: Clock, begun: float, lifetime: float
) -> None:
    source = make_certificate([NAME], now=EPOCH - 60 * DAY)
    _, newer = _pair(memory, other, source, make_certificate([NAME], now=begun, lifetime=lifetime))

    step = run(memory, other, clock)[KEY]

    assert step.outcome is StepOutcome.KEPT
    assert other.get(KEY) == newer


def test_undecidable_certificates_are_a_conflict(memory: Memory, other: Memory, clock: Clock) -> None:
    """The source has the later one, and the destination the one that lasts longer: a person decides."""
    later = make_certificate([NAME], now=EPOCH, lifetime=6 * DAY)
    source, destination = _pair(memory, other, later, make_certificate([NAME], now=EPOCH - 10 * DAY))

    step = run(memory, other, clock)[KEY]
    assert step.outcome is StepOutcome.CONFLICT
    assert "valid until 2027-04-05" in step.why
    assert "valid until 2027-01-21" in step.why
    assert other.get(KEY) == destination

    forced = run(memory, other, clock, overwrite=True)[KEY]
    assert forced.outcome is StepOutcome.OVERWRITTEN
    assert "valid until 2027-04-05" in forced.why
    assert other.get(KEY) == source


def test_overwrite_says_what_is_lost(memory: Memory, other: Memory, clock: Clock) -> None:
    source, _ = _pair(memory, other, make_certificate([NAME], now=EPOCH - DAY), make_certificate([NAME], now=EPOCH))
    step = run(memory, other, clock, overwrite=True)[KEY]
    assert step.outcome is StepOutcome.OVERWRITTEN
    assert step.why == "the certificate of 2027-01-15 08:00 UTC, valid until 2027-04-15 08:00 UTC is lost"
    assert other.get(KEY) == source


def test_sealed_certificates_without_a_key_cannot_be_compared(memory: Memory, other: Memory, clock: Clock) -> None:
    cipher = RecordCipher([NEW])
    put(memory, make_certificate([NAME], now=EPOCH), cipher)
    sealed = put(other, make_certificate([NAME], now=EPOCH - DAY), cipher)

    step = run(memory, other, clock)[KEY]
    assert step.outcome is StepOutcome.CONFLICT
    assert "acme_storage_key" in step.why
    assert other.get(KEY) == sealed

    assert run(memory, other, clock, cipher=cipher)[KEY].outcome is StepOutcome.COPIED
    assert other.get(KEY) == memory.get(KEY)


def test_record_of_a_later_release_is_not_overwritten(memory: Memory, other: Memory, clock: Clock) -> None:
    put(memory, make_certificate([NAME], now=EPOCH))
    other.put(KEY, b'{"version": 99}')
    step = run(memory, other, clock)[KEY]
    assert step.outcome is StepOutcome.CONFLICT
    assert "later release" in step.why
    assert other.get(KEY) == b'{"version": 99}'


def test_record_of_a_later_release_is_copied_as_it_is(memory: Memory, other: Memory, clock: Clock) -> None:
    memory.put(KEY, b'{"version": 99}')
    assert run(memory, other, clock)[KEY].outcome is StepOutcome.COPIED
    assert other.get(KEY) == b'{"version": 99}'


def test_rotated_records_of_the_source_replace(memory: Memory, other: Memory, clock: Clock) -> None:
    """The same certificate under the newest key; but never under an older one."""
    put(memory, make_certificate([NAME]), RecordCipher([OLD]))
    both = RecordCipher([NEW, OLD])
    run(memory, other, clock, cipher=both)
    before = other.get(KEY)
    list(rotate(memory, both))

    assert run(memory, other, clock, cipher=both)[KEY].outcome is StepOutcome.COPIED
    assert other.get(KEY) == memory.get(KEY)

    memory.put(KEY, before or b"")
    assert run(memory, other, clock, cipher=both)[KEY].outcome is StepOutcome.UNCHANGED
    assert other.get(KEY) != before


def test_another_account_at_the_destination_is_a_conflict(memory: Memory, other: Memory, clock: Clock) -> None:
    Store(memory, UNSEALED).save_account(ACCOUNT)
    Store(other, UNSEALED).save_account(replace(ACCOUNT, thumbprint="x", uri="https://ca.test/acct/2", key="{}"))
    key = account_key(DIRECTORY)

    step = run(memory, other, clock)[key]
    assert step.outcome is StepOutcome.CONFLICT
    assert "https://ca.test/acct/1" in step.why
    assert "https://ca.test/acct/2" in step.why
    assert "secret" not in step.why

    assert "acct/2 is lost" in run(memory, other, clock, overwrite=True)[key].why
    assert Store(other, UNSEALED).account(DIRECTORY) == ACCOUNT


def test_account_with_more_known_of_it_replaces(memory: Memory, other: Memory, clock: Clock) -> None:
    """Copied before the CA had answered, and copied again since."""
    Store(memory, UNSEALED).save_account(ACCOUNT)
    Store(other, UNSEALED).save_account(replace(ACCOUNT, uri="", eab_kid="", eab_hmac_key=""))
    run(memory, other, clock)
    assert Store(other, UNSEALED).account(DIRECTORY) == ACCOUNT
    Store(memory, UNSEALED).save_account(replace(ACCOUNT, uri=""))
    assert run(memory, other, clock)[account_key(DIRECTORY)].outcome is StepOutcome.KEPT
    assert Store(other, UNSEALED).account(DIRECTORY) == ACCOUNT


def test_the_more_careful_limit_counts(memory: Memory, other: Memory, clock: Clock) -> None:
    """Of two backoffs the longer, of two budgets the emptier; never by force."""
    fill(memory, clock)
    run(memory, other, clock)
    budget = other.keys("budgets/")[0]
    careful = json.dumps({"full_at": clock() + 3_000, "scope": ""}).encode()
    other.put(budget, careful, ttl=3_000)
    Store(other, UNSEALED).save_backoff("b.test", Backoff(9, clock() + 6_000, "no", clock()))

    steps = run(memory, other, clock, overwrite=True)

    assert steps[budget].outcome is steps["backoffs/b.test"].outcome is StepOutcome.KEPT
    assert other.get(budget) == careful
    memory.put(budget, json.dumps({"full_at": clock() + 3_500, "scope": ""}).encode())
    assert run(memory, other, clock)[budget].outcome is StepOutcome.COPIED


# Trouble


class Broken(Memory):
    """A storage in which some records are unreadable, as on a bad disk."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.broken: set[str] = set()

    def get(self, key: str) -> bytes | None:
        if key in self.broken:
            raise StorageCorrupt(f"{key} is damaged")
        return super().get(key)

    def delete(self, key: str) -> None:
        self.broken.discard(key)
        super().delete(key)


def test_broken_records_of_the_source_are_skipped(other: Memory, clock: Clock) -> None:
    """Each is reported, and everything else is copied."""
    source = Broken(clock)
    fill(source, clock)
    for name in ("bad.test", "cut.test"):
        put(source, make_certificate([name]))
    source.broken.add("certificates/bad.test")
    source.put("certificates/cut.test", (source.get("certificates/cut.test") or b"")[:100])
    source.put("calendar/00000001/5", b"")
    source.put("backoffs/junk.test", b"junk")

    steps = run(source, other, clock)

    broken = {key for key, step in steps.items() if step.outcome is StepOutcome.BROKEN}
    assert broken == {"certificates/bad.test", "certificates/cut.test", "calendar/00000001/5", "backoffs/junk.test"}
    assert all(steps[key].why for key in broken)
    assert other.get(KEY) == source.get(KEY)
    assert not broken & everything(other).keys()


def test_broken_record_of_the_destination_is_replaced(memory: Memory, clock: Clock) -> None:
    """No proxy can use it."""
    destination = Broken(clock)
    for name in ("a.test", "b.test"):
        put(memory, make_certificate([name]))
    destination.put("certificates/a.test", b"junk")
    destination.put("certificates/b.test", b"junk")
    destination.broken.add("certificates/b.test")
    run(memory, destination, clock)
    assert everything(destination) == everything(memory)


class Failing(Memory):
    """A storage that goes down after some writes, or takes no large values, or no values at all."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.writes_left = 10**9
        self.largest = 10**9
        self.full = False

    def get(self, key: str) -> bytes | None:
        if self.writes_left <= 0:
            raise StorageUnavailable("the destination is down")
        return super().get(key)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        if self.writes_left <= 0:
            raise StorageUnavailable("the destination is down")
        if self.full:
            raise StorageUnavailable("the disk is full")
        if len(new or b"") > self.largest:
            raise StorageUnavailable("the value is too large")
        self.writes_left -= 1
        return super().swap(key, old, new, ttl=ttl)


def test_destination_that_goes_down_is_continued(memory: Memory, clock: Clock) -> None:
    for number in range(50):
        put(memory, make_certificate([f"n{number}.test"]))
    destination = Failing(clock)
    destination.writes_left = 20
    with pytest.raises(StorageUnavailable, match="is down"):
        run(memory, destination, clock)
    destination.writes_left = 10**9

    steps = run(memory, destination, clock)

    assert everything(destination) == everything(memory)
    assert sum(step.outcome is StepOutcome.UNCHANGED for step in steps.values()) == 20


class LateToFail(Memory):
    """It is down for the first certificate, but only when five others are there."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.others_are_there = threading.Event()

    def get(self, key: str) -> bytes | None:
        if key == "certificates/n0.test":
            assert self.others_are_there.wait(10)
            raise StorageUnavailable("the destination is down")
        return super().get(key)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        done = super().swap(key, old, new, ttl=ttl)
        if len(self.keys("certificates/")) == 5:
            self.others_are_there.set()
        return done


def test_what_was_copied_before_the_destination_went_down_is_counted(memory: Memory, clock: Clock) -> None:
    """Also where the first record of a page is the one that fails, and other threads have copied the rest."""
    for number in range(6):
        put(memory, make_certificate([f"n{number}.test"]))
    steps = list[Step]()

    with pytest.raises(StorageUnavailable, match="is down"):  # noqa: PT012  # what comes before the error counts
        for step in transfer(memory, LateToFail(clock), clock).run():
            steps.append(step)  # an error must not lose those before it

    assert outcomes(steps) == {f"certificates/n{number}.test": StepOutcome.COPIED for number in range(1, 6)}


def test_value_that_is_too_large_for_the_destination_is_reported(memory: Memory, clock: Clock) -> None:
    """One such record stops no other."""
    fill(memory, clock)
    put(memory, make_certificate(["large.test", *(f"n{number}.large.test" for number in range(300))]))
    destination = Failing(clock)
    destination.largest = 4_000

    steps = run(memory, destination, clock)

    failed = [step for step in steps.values() if step.outcome is StepOutcome.FAILED]
    assert [(step.key, step.why) for step in failed] == [("certificates/large.test", "the value is too large")]
    assert destination.get(KEY) == memory.get(KEY)


def test_full_destination_ends_the_transfer(memory: Memory, clock: Clock) -> None:
    """It is not tried a hundred thousand times."""
    for number in range(50):
        put(memory, make_certificate([f"n{number}.test"]))
    destination = Failing(clock)
    destination.full = True
    with pytest.raises(StorageUnavailable, match="the disk is full"):
        run(memory, destination, clock)


class Forgetful(Memory):
    """A storage that stores something else."""

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        return super().swap(key, old, (new or b"")[:-1], ttl=ttl)


def test_every_write_is_read_back(memory: Memory, clock: Clock) -> None:
    put(memory, make_certificate([NAME]))
    step = run(memory, Forgetful(clock), clock)[KEY]
    assert step.outcome is StepOutcome.FAILED
    assert "gives back another value" in step.why


# While proxies run


class Hooked(Memory):
    """A storage in which something else happens before a swap, once for each key."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.before: dict[str, Callable[[], object]] = {}

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        if (act := self.before.pop(key, None)) is not None:
            act()
        return super().swap(key, old, new, ttl=ttl)


def test_live_writer_at_the_destination_is_not_overwritten(memory: Memory, clock: Clock) -> None:
    """A proxy stores a newer certificate there between the look and the write."""
    put(memory, make_certificate([NAME], now=EPOCH - DAY))
    destination, newer = Hooked(clock), make_certificate([NAME], now=EPOCH)
    destination.before[KEY] = lambda: put(destination, newer)

    assert run(memory, destination, clock)[KEY].outcome is StepOutcome.KEPT
    assert destination.get(KEY) == newer.to_record()


def test_what_proxies_write_meanwhile_is_caught_up(memory: Memory, clock: Clock) -> None:
    """A certificate that is new or replaced when the pass has been there, its schedule, and a new account."""
    old, new = make_certificate([NAME], now=EPOCH - DAY), make_certificate([NAME], now=EPOCH)
    added = make_certificate(["z.test"], now=EPOCH)
    put(memory, old)
    put(memory, make_certificate(["y.test"], now=EPOCH))
    destination = Hooked(clock)

    def write() -> None:
        """What a proxy does, when all earlier kinds have been copied."""
        for certificate in (new, added):
            RenewalSchedule(memory).add(ScheduledCheck(certificate.id, clock() + DAY))
            put(memory, certificate)
            ChangeFeed(memory, "node").announce(certificate.id, clock())
        Store(memory, UNSEALED).save_account(ACCOUNT)

    destination.before["certificates/y.test"] = write
    list(transfer(memory, destination, clock).run())

    assert destination.get(KEY) == new.to_record()
    assert destination.get("certificates/z.test") == added.to_record()
    assert destination.keys("calendar/") == memory.keys("calendar/")
    assert Store(destination, UNSEALED).account(DIRECTORY) == ACCOUNT


def test_following_goes_on_and_forgets_nothing(memory: Memory, clock: Clock) -> None:
    destination = Failing(clock)
    put(memory, make_certificate([NAME], now=EPOCH - DAY))
    following = transfer(memory, destination, clock)
    list(following.run())
    renewed = make_certificate([NAME], now=EPOCH)
    put(memory, renewed)
    ChangeFeed(memory, "node").announce(NAME, clock())
    destination.writes_left = 0
    with pytest.raises(StorageUnavailable):
        following.catch_up()
    destination.writes_left = 10**9
    assert outcomes(following.catch_up()) == {KEY: StepOutcome.COPIED}
    assert following.catch_up() == []
    assert destination.get(KEY) == renewed.to_record()


@pytest.mark.parametrize("again", [False, True], ids=["while it runs", "before the second run"])
def test_deleted_certificate_does_not_come_back(memory: Memory, other: Memory, clock: Clock, again: bool) -> None:
    """It was copied, and then revoked and deleted at the source; the nodes of the destination hear of a deletion."""
    put(memory, make_certificate([NAME], now=EPOCH))
    first = transfer(memory, other, clock)
    list(first.run())
    clock.advance(3_600)
    Nodes(other).heartbeat(Node("n", "standalone", "1", "host", clock()), clock())
    memory.delete(KEY)
    ChangeFeed(memory, "node").announce(NAME, clock(), deleted=True)

    steps = list(transfer(memory, other, clock).run()) if again else first.catch_up()

    assert outcomes(steps) == {KEY: StepOutcome.REMOVED}
    assert other.get(KEY) is None
    assert ChangeFeed(other, "n").deletions([NAME]) == {NAME: clock()}


def test_certificate_that_was_ordered_after_the_deletion_stays(memory: Memory, other: Memory, clock: Clock) -> None:
    ChangeFeed(memory, "node").announce(NAME, clock(), deleted=True)
    clock.advance(600)
    put(other, make_certificate([NAME], now=clock()))
    assert run(memory, other, clock) == {}
    assert other.get(KEY) is not None


def test_backoff_that_ended_at_the_source_ends_at_the_destination(memory: Memory, other: Memory, clock: Clock) -> None:
    """A CA works again: the new storage must not keep names from it."""
    store = Store(memory, UNSEALED)
    store.save_backoff(DIRECTORY, Backoff(1, clock() + 600, "down", clock()))
    store.save_backoff("kept.test", Backoff(1, clock() + 600, "no", clock()))
    following = transfer(memory, other, clock)
    list(following.run())
    store.delete_backoff(DIRECTORY)
    following.catch_up()
    assert other.keys("backoffs/") == ["backoffs/kept.test"]


def test_nodes_of_the_destination_are_told(memory: Memory, other: Memory, clock: Clock) -> None:
    """They read again what the copy changed; without a node there, nothing is announced."""
    put(memory, make_certificate([NAME], now=EPOCH))
    run(memory, other, clock)
    assert not other.keys("changes/")

    Nodes(other).heartbeat(Node("n", "standalone", "1", "host", clock()), clock())
    put(memory, make_certificate([NAME], now=EPOCH + 60))
    run(memory, other, clock)
    assert ChangeFeed(other, "n").read_new(clock()) == [NAME]


def test_three_thousand_records_take_little_memory(memory: Memory, other: Memory, clock: Clock) -> None:
    """What a transfer holds depends on its page, not on what is stored."""
    record = json.dumps({"failures": 1, "until": clock() + 600, "reason": "x" * 400, "since": clock()}).encode()
    for number in range(3_000):
        memory.put(f"backoffs/n{number:05}.test", record)

    copying = transfer(memory, other, clock)
    tracemalloc.start()
    assert sum(1 for _ in copying.run()) == 3_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_200_000  # half of it is the destination's own


@pytest.mark.parametrize(("here", "there"), [(Usage.USED, Usage.IDLE), (Usage.UNUSED, Usage.USED)])
def test_name_that_was_asked_for_at_either_storage_is_in_use(
    memory: Memory, other: Memory, clock: Clock, here: Usage, there: Usage
) -> None:
    for storage, usage in ((memory, here), (other, there)):
        storage.put(f"usage/{NAME}", UsageMark(clock(), usage).to_record())

    run(memory, other, clock)

    mark = UsageMarks(other).get(ServerName(NAME))
    assert mark is not None
    assert mark.usage is Usage.USED


def copier(
    source: Storage, destination: Storage, now: Clock | Callable[[], float], *, dry: bool = False
) -> RecordCopier:
    rules = rules_by_prefix(UNSEALED, lambda _: True, now)
    return RecordCopier(StorageSource(source), destination, rules, UNSEALED, now, dry=dry)


@pytest.mark.parametrize("key", ["leases/a.test", "changes/1", "elsewhere/a.test"])
def test_record_that_does_not_move_is_not_asked_for(memory: Memory, other: Memory, clock: Clock, key: str) -> None:
    """It would be a fault of ours."""
    memory.put(key, b"x")
    copying = copier(memory, other, clock)
    works: list[Callable[[], object]] = [lambda: copying.copy(key), lambda: copying.remove(key, 0.0)]
    for work in works:
        with pytest.raises(ValueError, match=f"records such as {key} do not move"):
            work()
    assert other.keys("") == []


def test_record_that_ends_while_it_is_copied_is_reported(memory: Memory, other: Memory) -> None:
    """It is not written without an end."""
    memory.put("budgets/ca/orders/account", b'{"full_at": 1800000001, "scope": ""}')
    times = iter([EPOCH, EPOCH + 2])
    step = copier(memory, other, lambda: next(times)).copy("budgets/ca/orders/account")
    assert step == Step("budgets/ca/orders/account", StepOutcome.FAILED, "it ended while it was copied")
    assert other.keys("") == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_sealed_record_does_not_replace_a_readable_one_unasked(
    memory: Memory, other: Memory, clock: Clock, overwrite: bool
) -> None:
    """It cannot be said here which is newer; by force it does, and what is lost is said."""
    put(memory, make_certificate([NAME], now=clock() + DAY), RecordCipher([NEW]))
    held = put(other, make_certificate([NAME], now=clock()))
    step = run(memory, other, clock, overwrite=overwrite)[KEY]
    if overwrite:
        assert step.outcome is StepOutcome.OVERWRITTEN
        assert step.why.startswith("the certificate of 2027-01-15 08:00 UTC")
        assert other.get(KEY) == memory.get(KEY)
    else:
        assert step.outcome is StepOutcome.CONFLICT
        assert step.why.startswith("at the source: no key here opens it: set the acme_storage_key of the proxies")
        assert other.get(KEY) == held


@pytest.mark.parametrize("value", [b"{}", RecordCipher([NEW]).seal(KEY, make_certificate([NAME]).to_record())])
def test_what_cannot_be_read_is_not_deleted_with_its_source(
    memory: Memory, other: Memory, clock: Clock, value: bytes
) -> None:
    """It may be newer than the deletion."""
    other.put(KEY, value)
    step = copier(memory, other, clock).remove(KEY, clock())
    assert step is not None
    assert step.outcome is StepOutcome.CONFLICT
    assert step.why.startswith("it was deleted at the source, and stays at the destination: ")
    assert other.get(KEY) == value


def test_dry_run_says_what_it_would_delete(memory: Memory, other: Memory, clock: Clock) -> None:
    """And deletes nothing."""
    held = put(other, make_certificate([NAME], now=clock()))
    assert copier(memory, other, clock, dry=True).remove(KEY, clock()) == Step(KEY, StepOutcome.REMOVED)
    assert other.get(KEY) == held
    assert copier(memory, other, clock).remove(KEY, clock() - 1) is None
    assert copier(memory, other, clock).remove(KEY, clock()) == Step(KEY, StepOutcome.REMOVED)
    assert other.get(KEY) is None


def test_changes_of_the_source_are_read_once(memory: Memory, clock: Clock) -> None:
    """Each with its last time; what is no announcement is passed over."""
    feed, changes = ChangeFeed(memory, "node-1"), SourceChanges(memory)
    feed.announce(NAME, clock(), deleted=False)
    feed.announce(NAME, clock() + 5, deleted=True)
    feed.announce(ServerName("b.test"), clock() + 1, deleted=False)
    memory.put(mark_key("m"), b"")
    memory.put("changes/junk~node~c.test", b"")
    assert changes.read_new() == {NAME: clock() + 5, "b.test": clock() + 1}
    assert changes.read_new() == {}
    feed.announce(ServerName("c.test"), clock() + 9, deleted=False)
    assert changes.read_new() == {"c.test": clock() + 9}


def test_record_that_cannot_be_read_is_there(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a backoff of its name is kept as that of a name with a certificate."""
    source = StorageSource(memory)
    assert not source.has(KEY)
    memory.put(KEY, b"x")
    assert source.has(KEY)

    def corrupt(key: str) -> bytes:
        raise StorageCorrupt(key)

    monkeypatch.setattr(memory, "get", corrupt)
    assert source.has(KEY)


def test_corrupt_record_whose_change_was_announced_is_not_taken_for_deleted(
    other: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once, and what the destination has stays."""
    source = Memory(now=clock)
    read = source.get
    ChangeFeed(source, "node-1").announce(NAME, clock() + 1, deleted=False)
    source.put(KEY, b"x")
    held = put(other, make_certificate([NAME], now=clock()))

    def corrupt(key: str) -> bytes | None:
        if key == KEY:
            raise StorageCorrupt("a bad block")
        return read(key)

    monkeypatch.setattr(source, "get", corrupt)
    moving = Transfer.between(source, other, UNSEALED, TransferOptions())
    steps = [step for step in moving.run() if step.key == KEY]
    assert [step.outcome for step in steps] == [StepOutcome.BROKEN]
    assert moving.catch_up() == []
    assert other.get(KEY) == held


def test_transfer_overwrites_only_if_it_is_told() -> None:
    """The options begin with what loses nothing."""
    assert not TransferOptions().overwrite
    assert not TransferOptions().dry


@pytest.mark.parametrize(
    ("source", "destination", "missing"),
    [
        ([["a", "c", "d"], ["e"]], [["b", "c"], ["e"]], [["a", "d"]]),
        ([["a"], ["b"]], [], [["a"], ["b"]]),
        ([], [["a"]], []),
        ([["b", "d"]], [["a", "b"], ["c", "d", "e"]], []),
    ],
)
def test_missing_keys_are_found_page_by_page(
    source: list[list[str]], destination: list[list[str]], missing: list[list[str]]
) -> None:
    """Wherever the pages of the two end."""
    assert list(missing_pages(iter(source), iter(destination))) == missing


def test_record_that_was_sealed_twice_is_the_same(memory: Memory, other: Memory, clock: Clock) -> None:
    """Its bytes differ, since each sealing does; nothing is written, and no node is told."""
    cipher, certificate = RecordCipher([NEW]), make_certificate([NAME], now=clock())
    assert put(memory, certificate, cipher) != (held := put(other, certificate, cipher))
    assert run(memory, other, clock, cipher=cipher)[KEY].outcome is StepOutcome.UNCHANGED
    assert other.get(KEY) == held


def test_change_that_was_caught_up_is_done_with(memory: Memory, other: Memory, clock: Clock) -> None:
    """It is not copied again each time: following may go on for days."""
    ChangeFeed(memory, "node-1").announce(NAME, clock())
    put(memory, make_certificate([NAME], now=clock()))
    moving = transfer(memory, other, clock)
    list(moving.run())
    assert moving._changed == {}
    assert moving.catch_up() == []


def test_announcement_that_nobody_can_read_hides_none(memory: Memory, clock: Clock) -> None:
    """Another program's key, or a later release's, stands before ours."""
    feed, changes = ChangeFeed(memory, "node"), SourceChanges(memory)
    memory.put("changes/0", b"")
    feed.announce(NAME, clock())
    assert list(changes.read_new()) == [NAME]
