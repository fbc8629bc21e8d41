"""What an order costs: one after the other, many at once, from the start, and one name that everybody wants.

Knows methods and goals; must not know how a contestant is started.
"""

import asyncio
import statistics
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from scripts.bench_client import Visit
from scripts.bench_report import Row, spread
from scripts.bench_stage import Contestant, Stage, new_names
from scripts.bench_words import PATIENCE, REPEATS, Untrusted, Wishes, trusted
from tests.servers.pebble import Seen

# CertMagic starts ten orders in ten seconds and lets the others wait: slower than that it measures itself, not us.
CADDY_PACE = 1.05
SEQUENTIAL, CROWD, MANAGED, CLIENTS = 15, 40, 100, 100


def unknown_names(wishes: Wishes) -> list[Row]:
    """First handshakes in sequence, ours and Caddy's in turn; and what each certificate cost the CA."""
    with Stage() as stage:
        contestants = (stage.ours(), stage.caddy())
        for proxy in contestants:  # the account is not part of it
            trusted(proxy.client.visit(proxy.port, new_names(1)[0]))
        before = [proxy.pebble.seen() for proxy in contestants]
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(SEQUENTIAL):
            wishes.say(f"unknown name {turn + 1} of {SEQUENTIAL}")
            pace = time.monotonic() + CADDY_PACE
            for proxy, found in zip(contestants, times, strict=True):
                found.append(trusted(proxy.client.visit(proxy.port, new_names(1)[0])))
            time.sleep(max(pace - time.monotonic(), 0))
        seen = [proxy.pebble.seen() - was for proxy, was in zip(contestants, before, strict=True)]
    return [unknown_row(*times), requests_row(*seen)]


def unknown_row(ours: Sequence[float], caddy: Sequence[float]) -> Row:
    ratio = statistics.median(ours) / statistics.median(caddy)
    return Row(
        "unknown",
        "unknown name to trusted handshake",
        spread(ours),
        f"Caddy {spread(caddy)}",
        ratio,
        "under 0.2 of Caddy",
        ratio < 0.2,
        f"median (least to most) of {SEQUENTIAL} names in sequence, from the TCP connection to the verified handshake; "
        f"ours and Caddy's in turn, a pair each {CADDY_PACE} s so that Caddy's own limit of 10 orders in 10 s stays "
        "out of it; the account exists; Pebble sends no Retry-After that Caddy would wait for.",
        {"ours_ms": list(ours), "caddy_ms": list(caddy)},
    )


def requests_row(ours: Seen, caddy: Seen) -> Row:
    mine, theirs = ours.requests / ours.certificates, caddy.requests / caddy.certificates
    return Row(
        "requests",
        "CA requests per certificate",
        f"{mine:.1f}",
        f"Caddy {theirs:.1f}",
        mine / theirs,
        "7",
        round(mine, 1) <= 7,
        f"all requests in Pebble's log during the {SEQUENTIAL} names above, per certificate; lua-resty-acme: 14.5, "
        "measured earlier.",
        {"ours": dict(ours.by_path), "caddy": dict(caddy.by_path), "certificates": ours.certificates},
    )


def many_names(wishes: Wishes) -> list[Row]:
    """A crowd of unknown names, and many managed ones: ours alone and repeated, then Caddy's two at the same time.

    Caddy spends nearly all of both waiting for its own limit, so they don't disturb one another.
    """
    crowds = [our_crowd(wishes, turn) for turn in range(REPEATS)] if "crowd" in wishes.rows else []
    starts = [our_start(wishes, turn) for turn in range(REPEATS)] if "managed" in wishes.rows else []
    wishes.say("Caddy's turn, which takes a minute and a half: it waits for its own limit")
    with Stage() as stage:
        caddy_crowd, caddy_start = asyncio.run(both(stage, wishes.rows))
    rows = []
    if caddy_crowd:
        rows.append(crowd_row(crowds, caddy_crowd))
    if caddy_start:
        rows.append(managed_row(starts, caddy_start))
    return rows


def our_crowd(wishes: Wishes, turn: int) -> float:
    """Seconds until the last one is done."""
    wishes.say(f"{CROWD} unknown names at once, time {turn + 1} of {REPEATS}")
    with Stage() as stage:
        return asyncio.run(crowd_of(stage.ours()))


async def crowd_of(proxy: Contestant) -> float:
    """Seconds until the last of a crowd on unknown names has its trusted handshake; the account exists."""
    trusted(await proxy.client.come(proxy.port, new_names(1)[0]))
    return max(trusted(visit) for visit in await proxy.client.crowd(proxy.port, new_names(CROWD))) / 1000


class Start(NamedTuple):
    """Seconds from the start of the process."""

    issued: float  # the CA has signed the last one
    served: float  # each name has had a trusted handshake


def our_start(wishes: Wishes, turn: int) -> Start:
    """With new names, on an empty storage."""
    wishes.say(f"{MANAGED} managed names from start, time {turn + 1} of {REPEATS}")
    with Stage() as stage:
        names = new_names(MANAGED)
        proxy = stage.prepare_ours({"acme_certificates": names})
        return asyncio.run(start_of(stage, proxy, names))


async def start_of(stage: Stage, proxy: Contestant, names: Sequence[str]) -> Start:
    """Start it and watch the CA's log, not the proxy; then see that every name is served."""
    began = time.perf_counter()
    stage.start(proxy)
    try:
        async with asyncio.timeout(PATIENCE):
            while proxy.pebble.seen().certificates < len(names):
                await asyncio.sleep(0.1)
            issued = time.perf_counter() - began
            await proxy.client.all_served(proxy.port, names)
    except TimeoutError:
        raise Untrusted(f"{proxy.label} does not serve {len(names)} names after {PATIENCE} s") from None
    return Start(issued, time.perf_counter() - began)


async def both(stage: Stage, rows: Collection[str]) -> tuple[float | None, Start | None]:
    """Caddy's crowd and Caddy's start, as far as they are wanted."""

    async def crowd() -> float | None:
        return await crowd_of(stage.caddy()) if "crowd" in rows else None

    async def start() -> Start | None:
        names = new_names(MANAGED)
        return await start_of(stage, stage.prepare_caddy(names), names) if "managed" in rows else None

    return await asyncio.gather(crowd(), start())


def crowd_row(ours: Sequence[float], caddy: float) -> Row:
    middle = statistics.median(ours)
    return Row(
        "crowd",
        f"{CROWD} unknown names at once, the last one done",
        spread(ours, "s", 2),
        f"Caddy {caddy:.1f} s",
        middle / caddy,
        "under 2.5 s",
        middle < 2.5,
        f"{CROWD} clients on one event loop, all connecting at once, each trusting; ours {REPEATS} times on new "
        "servers, Caddy once; the account exists.",
        {"ours_s": list(ours), "caddy_s": caddy},
    )


def managed_row(ours: Sequence[Start], caddy: Start) -> Row:
    served = [start.served for start in ours]
    middle, issued = statistics.median(served), statistics.median(start.issued for start in ours)
    return Row(
        "managed",
        f"{MANAGED} managed names from start until all are served",
        spread(served, "s", 1),
        f"Caddy {caddy.served:.1f} s",
        middle / caddy.served,
        "under 5 s",
        middle < 5,
        f"from the start of the process, with no account and an empty storage; Pebble's log is watched until it has "
        f"issued {MANAGED} (ours: {issued:.1f} s, Caddy: {caddy.issued:.1f} s), then every name is visited, 8 at a "
        f"time, until its handshake is trusted; ours {REPEATS} times, Caddy once.",
        {"ours": [start._asdict() for start in ours], "caddy": caddy._asdict()},
    )


def one_cold_name(wishes: Wishes) -> list[Row]:
    """Many clients that all want one new name."""
    with Stage() as stage:
        found = []
        for proxy in (stage.ours(), stage.caddy()):
            wishes.say(f"{CLIENTS} clients at once on one cold name, {proxy.label}")
            trusted(proxy.client.visit(proxy.port, new_names(1)[0]))
            before = proxy.pebble.seen()
            visits = asyncio.run(proxy.client.crowd(proxy.port, new_names(1) * CLIENTS))
            found.append((visits, (proxy.pebble.seen() - before).orders))
    (visits, orders), (theirs, their_orders) = found
    return [
        Row(
            "one-name",
            f"{CLIENTS} clients at once on one cold name",
            told(visits, orders),
            f"Caddy {told(theirs, their_orders)}",
            slowest(visits) / slowest(theirs),
            f"1 order, {CLIENTS} trusted",
            orders == 1 and all(visit.trusted for visit in visits),
            "all connect at once from one event loop; the time is the last one's.",
            {"ours_ms": [visit.milliseconds for visit in visits], "caddy_ms": [visit.milliseconds for visit in theirs]},
        )
    ]


def told(visits: Sequence[Visit], orders: int) -> str:
    return f"{orders} order, {sum(visit.trusted for visit in visits)} trusted, {slowest(visits):.0f} ms"


def slowest(visits: Sequence[Visit]) -> float:
    return max(visit.milliseconds for visit in visits)
