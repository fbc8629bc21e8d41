"""What very many certificates in a store cost: the start, a handshake, a renewal pass and memory, store by store.

Knows methods and goals; must not know how certificates are made, nor how a store is run.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.renewal import DAY
from scripts.bench_client import Client, resident_mb
from scripts.bench_hoard import NO_CA, LocalCA, certificates, put
from scripts.bench_housekeeping import describe, put_expired, remove_expired
from scripts.bench_pass import Pass, passes
from scripts.bench_report import Row, spread
from scripts.bench_stage import ZONE, new_names
from scripts.bench_words import PATIENCE, trusted
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.stores import Place, running
from tests.servers.upstream import Upstream

KINDS = ("file", "sqlite", "postgresql", "redis")
_SOON = 900.0  # seconds until the first comes due: while the proxies run, nothing does
_FEW = 100  # in the store to compare a pass with
_DUE = 10
_ASKED = 200  # names, each asked for twice
_CROWD, _STEPS = 10_000, 10  # names that are asked for with little memory; and how often it is looked at meanwhile
_AT_ONCE = 8
_AHEAD = 90.0  # seconds: a pass reads what comes due in the next half minute, and the rest of that minute

Say = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """How many certificates, that come due over how many hours, and how many starts."""

    count: int
    hours: float
    starts: int
    say: Say


@dataclass(frozen=True)
class Hoard:
    """What was put into a store."""

    ca: LocalCA
    stored: Sequence[Certificate]
    first_due: float

    def names(self, count: int) -> list[str]:
        """Some of them, each once."""
        return random.sample([certificate.id for certificate in self.stored], min(count, len(self.stored)))

    def looks(self, hours: float) -> list[float]:
        return [self.first_due + n * hours * 3_600 / len(self.stored) for n in range(len(self.stored))]


@dataclass(frozen=True)
class Fixture:
    """A full store, an empty one beside it, and one web server."""

    place: Place
    empty: str
    hoard: Hoard
    scale: Scale
    upstream: Upstream

    @property
    def label(self) -> str:
        return f"{self.scale.count:,} certificates in {self.place.kind}"

    def proxy(self, url: str, **options: Option) -> Mitmdump:
        """mitmdump with the addon on the store at ``url``, not yet started."""
        usual: dict[str, Option] = {"acme_storage": url, "acme_domains": f"**.{ZONE}", "acme_ca": NO_CA}
        server = Mitmdump(self.upstream.url, {**usual, "acme_tos_accepted": True, **options})
        server.environment |= self.place.environment
        return server


def measure(kind: str, scale: Scale) -> list[Row]:
    """All rows of one kind of store."""
    with TemporaryDirectory() as folder, running(kind, Path(folder)) as place, Upstream() as upstream:
        os.environ.update(place.environment)
        scale.say(f"{kind}: signing {scale.count} certificates")
        first = time.time() + _SOON
        ca = LocalCA()
        signed = list(certificates(ca, scale.count, ZONE, start=first, hours=scale.hours))
        fixture = Fixture(place, _beside(place), Hoard(ca, signed, first), scale, upstream)
        return [
            filled(fixture),
            ready(fixture),
            stored_name(fixture),
            renewal_pass(fixture),
            memory(fixture),
            kept_house(fixture),
        ]


def _beside(place: Place) -> str:
    """The URL of another store in the same place."""
    if place.kind == "sqlite":
        return place.url.replace(".db", "-beside.db")
    return place.url + {"file": "-beside", "postgresql": "?table=beside", "redis": "?namespace=beside:"}[place.kind]


def filled(fixture: Fixture) -> Row:
    """Put them there."""
    fixture.scale.say(f"{fixture.place.kind}: storing {fixture.scale.count} certificates")
    with _opened(fixture.place.url) as storage:
        begun = time.perf_counter()
        put(storage, fixture.hoard.stored, fixture.hoard.looks(fixture.scale.hours))
        took = time.perf_counter() - begun
    return Row(
        f"fill-{fixture.place.kind}",
        f"{fixture.label}: storing them",
        f"{took:.0f} s",
        "",
        None,
        "",
        None,
        "each certificate and its entry in the calendar, by the calls of a renewal, from 4 threads; they come due over "
        f"{fixture.scale.hours:g} hours.",
        {"fill_s": took},
    )


@contextmanager
def _opened(url: str) -> Iterator[Storage]:
    storage = open_storage(url, default_folder=Path("/nowhere"))
    try:
        yield storage
    finally:
        storage.close()


def ready(fixture: Fixture) -> Row:
    """From the start of the process until both ports answer, on the full store and on the empty one in turn."""
    full, empty, first = list[float](), list[float](), list[float]()
    client = Client(fixture.hoard.ca.root_pem)
    for turn in range(fixture.scale.starts):
        fixture.scale.say(f"{fixture.place.kind}: start {turn + 1} of {fixture.scale.starts}")
        for url, times in ((fixture.place.url, full), (fixture.empty, empty)):
            begun = time.perf_counter()
            with fixture.proxy(url) as proxy:
                times.append(time.perf_counter() - begun)
                if times is full:
                    first.append(trusted(client.visit(proxy.https_port, fixture.hoard.names(1)[0])))
    more = statistics.median(full) - statistics.median(empty)
    return Row(
        f"ready-{fixture.place.kind}",
        f"{fixture.label}: ready after",
        spread(full, "s", 2),
        f"empty store {spread(empty, 's', 2)}",
        statistics.median(full) / statistics.median(empty),
        "under 1 s more",
        more < 1,
        f"from the start of mitmdump until both ports answer, full and empty in turn, {len(full)} times each: "
        f"{more * 1000:+.0f} ms; the first handshake after it, on a stored name, took {spread(first)}.",
        {"full_s": full, "empty_s": empty, "first_ms": first},
    )


def stored_name(fixture: Fixture) -> Row:
    """Names that are stored and not in memory, and the same names once more."""
    client, (warm, *names) = Client(fixture.hoard.ca.root_pem), fixture.hoard.names(_ASKED + 1)
    fixture.scale.say(f"{fixture.place.kind}: {len(names)} stored names, each twice")
    with fixture.proxy(fixture.place.url) as proxy:
        trusted(client.visit(proxy.https_port, warm))
        stored, cached = ([trusted(client.visit(proxy.https_port, name)) for name in names] for _ in range(2))
    more = statistics.median(stored) - statistics.median(cached)
    return Row(
        f"stored-{fixture.place.kind}",
        f"{fixture.label}: handshake of a stored name",
        spread(stored, "ms", 1),
        f"from memory {spread(cached, 'ms', 1)}",
        statistics.median(stored) / statistics.median(cached),
        "under 10 ms more",
        more < 10,
        f"{len(names)} random names in sequence, full handshakes, from the TCP connection to the verified handshake; "
        f"then the same names again: {more:+.1f} ms.",
        {"stored_ms": stored, "cached_ms": cached},
    )


def renewal_pass(fixture: Fixture) -> Row:
    """A pass in which some are due, on the full store and on one of few."""
    fixture.scale.say(f"{fixture.place.kind}: a renewal pass with {_DUE} due")
    hoard, looks = fixture.hoard, fixture.hoard.looks(fixture.scale.hours)
    now = hoard.first_due - 1  # the calendar is as full as ever from here on
    few = hoard.stored[:: max(len(hoard.stored) // _FEW, 1)]
    with _opened(fixture.empty) as storage:
        put(storage, few, [now + 3_600 + n for n in range(len(few))])
        _, small = _passes(storage, hoard.ca, now)
    with _opened(fixture.place.url) as storage:
        idle, full = _passes(storage, hoard.ca, now)
    coming = sum(look < now + _AHEAD for look in looks)
    more = full.total - small.total
    return Row(
        f"pass-{fixture.place.kind}",
        f"{fixture.label}: renewal pass, {_DUE} due",
        f"{full.total} calls of the store, {full.seconds * 1000:.0f} ms",
        f"{len(few)} stored: {small.total} calls, {small.seconds * 1000:.0f} ms",
        full.total / small.total,
        "what is due, and comes due at once",
        more <= 1.01 * coming + 1,  # each read, and a page for every 200
        f"one round of the renewer in this process, with a CA that signs at once: {full}. Of the certificates stored "
        f"{coming} come due in the next {_AHEAD:.0f} s, and their entries are read. A round in which nothing is due: "
        f"{idle.total} calls ({idle}), {idle.seconds * 1000:.0f} ms.",
        {"full": vars(full), "few": vars(small), "idle": vars(idle)},
    )


def _passes(storage: Storage, ca: LocalCA, now: float) -> tuple[Pass, Pass]:
    overdue = [ca.certificate(name, due=now - DAY) for name in new_names(_DUE)]
    return asyncio.run(passes(storage, ca, overdue, ZONE, now))


def kept_house(fixture: Fixture) -> Row:
    """As many expired certificates beside the live ones: starts, and then the passes that remove them."""
    scale, hoard = fixture.scale, fixture.hoard
    scale.say(f"{fixture.place.kind}: storing {scale.count} expired certificates")
    with _opened(fixture.place.url) as storage:
        put_expired(storage, hoard.ca, scale.count, ZONE)
    full, empty = _starts(fixture)
    scale.say(f"{fixture.place.kind}: removing them")
    with _opened(fixture.place.url) as storage:
        done = remove_expired(storage, hoard.ca, ZONE)
        lost = sum(storage.get(f"certificates/{certificate.id}") is None for certificate in hoard.stored)
    return describe(f"{fixture.label} and as many expired", fixture.place.kind, done, (full, empty), lost)


def _starts(fixture: Fixture) -> tuple[list[float], list[float]]:
    """Return the seconds until both ports answer, on the full store and on the empty one in turn."""
    full, empty = list[float](), list[float]()
    for turn in range(fixture.scale.starts):
        fixture.scale.say(f"{fixture.place.kind}: start {turn + 1} of {fixture.scale.starts}")
        for url, times in ((fixture.place.url, full), (fixture.empty, empty)):
            begun = time.perf_counter()
            with fixture.proxy(url):
                times.append(time.perf_counter() - begun)
    return full, empty


def memory(fixture: Fixture) -> Row:
    """What the proxy holds while many more names are asked for than it may keep."""
    names = fixture.hoard.names(_CROWD)
    step = max(len(names) // _STEPS, 1)
    size, half = step, step * (_STEPS // 2)
    client, resident = Client(fixture.hoard.ca.root_pem), {}
    with fixture.proxy(fixture.place.url, acme_cache_size=size) as proxy:
        for done in range(0, len(names), step):
            fixture.scale.say(f"{fixture.place.kind}: memory after {done} of {len(names)} names")
            resident[done] = resident_mb(proxy.pid)
            some = client.all_served(proxy.https_port, names[done : done + step], _AT_ONCE)
            asyncio.run(asyncio.wait_for(some, PATIENCE))
        resident[len(names)] = resident_mb(proxy.pid)
    warm, last = resident[half], resident[len(names)]
    told = ", ".join(f"{mb:.0f}" for mb in resident.values())
    return Row(
        f"memory-{fixture.place.kind}",
        f"{fixture.label}: memory, acme_cache_size={size}",
        f"{warm:.0f} MB after {half:,} names, {last:.0f} MB after {len(names):,}",
        f"before the first {resident[0]:.0f} MB",
        None,
        "no growth (5 MB)",
        last - warm < 5,
        f"resident memory of mitmdump (/proc/PID/status) while {len(names):,} distinct stored names are asked for, "
        f"{_AT_ONCE} at a time; judged by the second half of them: {told} MB, every {step:,} names.",
        {"resident_mb": resident},
    )
