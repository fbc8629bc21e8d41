"""What scripts/bench measures, one function for each measurement; each sets its own stage, and returns its rows.

Knows methods and goals; must not know how a contestant is started.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scripts.bench_client import Client, Visit, settled_cpu_ms
from scripts.bench_report import Row, percentile, spread
from scripts.bench_stage import ZONE, Contestant, Stage, new_names
from tests.servers import loop_lag
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Option
from tests.servers.pebble import Seen

# CertMagic starts ten orders in ten seconds and lets the others wait: slower than that it measures itself, not us.
CADDY_PACE = 1.05
SEQUENTIAL, CROWD, MANAGED, ORDERED, CLIENTS, VISITS, DOWN = 15, 40, 100, 64, 100, 20, 100
PATIENCE = 200  # seconds: Caddy needs 92 for its managed names
HANDSHAKES = 40  # in one round of one contestant
REPEATS = 3  # of what takes us seconds, and Caddy a minute


@dataclass(frozen=True)
class Wishes:
    """What the caller wants, and where progress goes."""

    rows: Collection[str]
    rounds: int
    slow: bool
    say: Callable[[str], None]


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
    """With names that nobody has seen, on an empty storage."""
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


class Cached(NamedTuple):
    """Who serves handshakes of a certificate in memory."""

    pid: int
    port: int
    client: Client


def cached_handshakes(wishes: Wishes) -> list[Row]:
    """CPU of the server for each full handshake, everybody's rounds interleaved."""
    name = f"cached.{ZONE}"
    with Stage() as stage:
        proxies = cached_contestants(stage, name)
        for proxy in proxies.values():
            cpu_per_handshake(proxy, name)  # warm
        rounds: list[dict[str, float]] = []
        for turn in range(wishes.rounds):
            wishes.say(f"cached handshakes, round {turn + 1} of {wishes.rounds}")
            order = list(proxies)[turn % len(proxies) :] + list(proxies)[: turn % len(proxies)]
            rounds.append({label: cpu_per_handshake(proxies[label], name) for label in order})
    return cached_rows(rounds)


def cached_contestants(stage: Stage, name: str) -> dict[str, Cached]:
    found = {}
    ours = {"addon": stage.ours(), "addon, quiet": stage.ours(arguments=["--quiet"])}
    ours |= {"addon by run": stage.run(), "Caddy": stage.caddy()}
    for label, proxy in ours.items():
        trusted(proxy.client.visit(proxy.port, name))
        found[label] = Cached(proxy.server.pid, proxy.port, proxy.client)
    lazy = ["--set", "connection_strategy=lazy"]
    stock = {
        "stock": stage.stock(name),
        "stock, lazy": stage.stock(name, lazy),
        "stock, lazy and quiet": stage.stock(name, [*lazy, "--quiet"]),
    }
    found |= {label: Cached(server.pid, server.https_port, Client(server.root)) for label, server in stock.items()}
    return found


def cpu_per_handshake(proxy: Cached, name: str) -> float:
    """Milliseconds of CPU for one, all threads counted, over `HANDSHAKES` in sequence."""
    before = settled_cpu_ms(proxy.pid)
    for _ in range(HANDSHAKES):
        trusted(proxy.client.visit(proxy.port, name))
    return (settled_cpu_ms(proxy.pid) - before) / HANDSHAKES


def cached_rows(rounds: Sequence[dict[str, float]]) -> list[Row]:
    """`mitmdump --certs` as it comes is the peer; the others are told for honesty."""
    method = (
        f"CPU of all threads of the server (/proc/PID/task/*/schedstat) over {HANDSHAKES} full TLS 1.3 handshakes in "
        f"sequence, no resumption, no request; {len(rounds)} rounds with all contestants in turn; the median of the "
        "rounds, and the median of the rounds' ratios. ECDSA P-256 leaf and one intermediate everywhere."
    )
    first = "stock mitmdump connects to the upstream at once (its default), the addon only for a request."
    run = "the same; mitmproxy-acme run: uvloop, and no log lines for connections."
    pairs = [
        ("addon", "stock", f"{method} {first}", 0.6),
        ("addon by run", "stock", run, 0.4),
        ("addon", "stock, lazy", "the same with connection_strategy=lazy on both sides.", None),
        ("addon, quiet", "stock, lazy and quiet", "the same with --quiet on both sides too.", None),
        ("addon", "Caddy", "the same rounds; Caddy is compiled and uses several threads.", None),
    ]
    return [cached_row(rounds, *pair) for pair in pairs]


def cached_row(rounds: Sequence[dict[str, float]], ours: str, peer: str, method: str, goal: float | None) -> Row:
    mine, theirs = [found[ours] for found in rounds], [found[peer] for found in rounds]
    ratio = statistics.median(mine[turn] / theirs[turn] for turn in range(len(rounds)))
    return Row(
        "cached",
        f"CPU per cached handshake, {ours} : {peer}",
        spread(mine, "ms", 2),
        spread(theirs, "ms", 2),
        ratio,
        f"under {goal}" if goal else "",
        ratio < goal if goal else None,
        method,
        {ours: mine, peer: theirs},
    )


def failing_name(wishes: Wishes) -> list[Row]:
    """A name that cannot validate, visited again and again."""
    name = new_names(1)[0]
    with Stage() as stage:
        stage.dns.set_servfail(name)
        proxy = stage.ours()
        trusted(proxy.client.visit(proxy.port, new_names(1)[0]))
        before = proxy.pebble.seen()
        visits = []
        for turn in range(VISITS):
            wishes.say(f"a name that cannot validate, visit {turn + 1} of {VISITS}")
            visits.append(proxy.client.visit(proxy.port, name))
        seen = proxy.pebble.seen() - before
        caddy = failing_at_caddy(stage, wishes, name) if wishes.slow else "Caddy 180 s each, 4 orders each (earlier)"
    assert not any(visit.trusted for visit in visits), "a name that cannot validate was trusted"
    first, *later = (visit.milliseconds for visit in visits)
    return [
        Row(
            "failing",
            f"a name that cannot validate, {VISITS} visits",
            f"{seen.orders} order; then {spread(later)}",
            caddy,
            None,
            "1 order; then under 50 ms",
            seen.orders == 1 and statistics.median(later) < 50,
            f"its DNS answers SERVFAIL to Pebble; visits in sequence, the first one took {first:.0f} ms; the later "
            "ones get mitmproxy's own certificate at once; judged by their median. Caddy's figure was measured "
            "earlier; --slow measures it anew (6 minutes).",
            {"visits_ms": [visit.milliseconds for visit in visits], "orders": seen.orders},
        )
    ]


def failing_at_caddy(stage: Stage, wishes: Wishes, name: str) -> str:
    """Two visits: Caddy holds each for three minutes."""
    proxy = stage.caddy()
    trusted(proxy.client.visit(proxy.port, new_names(1)[0]))
    before = proxy.pebble.seen()
    times = []
    for turn in range(2):
        wishes.say(f"a name that cannot validate at Caddy, visit {turn + 1} of 2: three minutes")
        times.append(proxy.client.visit(proxy.port, name, 240).milliseconds / 1000)
    orders = (proxy.pebble.seen() - before).orders
    return f"Caddy {times[0]:.0f} s and {times[1]:.0f} s, {orders} orders for 2 visits"


def ca_down(wishes: Wishes) -> list[Row]:
    """Handshakes on names that all need a CA that is not there."""
    wishes.say(f"the CA is down: {DOWN} handshakes on {DOWN} names")
    with Stage() as stage, Chaos(free_port()) as dead:
        proxy = stage.ours({"acme_ca": f"https://localhost:{dead.port}/dir"})
        together = asyncio.run(proxy.client.crowd(proxy.port, new_names(DOWN // 2)))
        single = [proxy.client.visit(proxy.port, name) for name in new_names(DOWN - DOWN // 2)]
        connections = dead.connections
    last = [visit.milliseconds for visit in single]
    return [
        Row(
            "ca-down",
            f"CA down, {DOWN} handshakes on {DOWN} names",
            f"{connections} connection{'s' if connections != 1 else ''} to the CA",
            "lua-resty-acme 100 (earlier)",
            None,
            "1",
            connections == 1,
            f"the directory's port resets every connection; {DOWN // 2} names at once, then {DOWN - DOWN // 2} in "
            f"sequence, which were answered after {spread(last)}.",
            {"together_ms": [visit.milliseconds for visit in together], "sequence_ms": last},
        )
    ]


def loop_lags(wishes: Wishes) -> list[Row]:
    """How late the event loop is while certificates are ordered: by itself, and with as many clients that wait."""
    wishes.say(f"event-loop lag while {ORDERED} certificates are ordered")
    managed, crowd = [late for _ in range(REPEATS) for late in lag_of_managed()], lag_of_crowd()
    p99 = percentile(managed, 99)
    method = "a script beside the addon notes every 5 ms how late the loop is"
    return [
        Row(
            "lag",
            f"event-loop lag while {ORDERED} certificates are ordered",
            told_lag(managed),
            "",
            None,
            "p99 under 20 ms",
            p99 < 20,
            f"{method}; {ORDERED} managed names, from mitmproxy's `running` hook until Pebble has issued the last, "
            f"{REPEATS} starts, {len(managed)} samples; the CA shares the two cores.",
            {"managed_ms": sorted(managed)},
        ),
        Row(
            "lag-crowd",
            f"event-loop lag while {ORDERED} clients come at once, each on an unknown name",
            told_lag(crowd),
            "",
            None,
            "",
            None,
            f"the same with {ORDERED} handshakes in one moment, {len(crowd)} samples: most of the lag is mitmproxy "
            "taking the connections.",
            {"crowd_ms": sorted(crowd)},
        ),
    ]


def lag_of_managed() -> list[float]:
    """Milliseconds, while managed certificates are obtained."""
    names = new_names(ORDERED)
    with Stage() as stage:
        proxy, result = prepare_lag(stage, {"acme_certificates": names})
        began = time.monotonic()
        stage.start(proxy)
        while proxy.pebble.seen().certificates < ORDERED:
            if time.monotonic() - began > PATIENCE:
                raise Untrusted(f"{proxy.label} does not obtain {ORDERED} names in {PATIENCE} s")
            time.sleep(0.05)
        return lags(proxy, result, began)


def lag_of_crowd() -> list[float]:
    """Milliseconds, while a crowd of clients waits for the certificates."""
    with Stage() as stage:
        proxy, result = prepare_lag(stage, {})
        stage.start(proxy)
        trusted(proxy.client.visit(proxy.port, new_names(1)[0]))
        began = time.monotonic()
        for visit in asyncio.run(proxy.client.crowd(proxy.port, new_names(ORDERED))):
            trusted(visit)
        return lags(proxy, result, began)


def prepare_lag(stage: Stage, options: dict[str, Option]) -> tuple[Contestant, Path]:
    """Ours with the script that samples, and the file that it will write."""
    proxy = stage.prepare_ours(options, ["-s", loop_lag.__file__])
    result = proxy.server.folder / "lag.json"
    proxy.server.environment["ACME_LOOP_LAG"] = str(result)
    return proxy, result


def lags(proxy: Contestant, result: Path, began: float) -> list[float]:
    """Stop the proxy, and return its samples from ``began`` until now."""
    ended = time.monotonic()
    proxy.server.stop()
    samples: list[tuple[float, float]] = json.loads(result.read_text())
    return [late * 1000 for due, late in samples if began <= due < ended]


def told_lag(found: Sequence[float]) -> str:
    return f"p50 {percentile(found, 50):.1f} ms, p99 {percentile(found, 99):.1f} ms, most {max(found):.1f} ms"


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


class Untrusted(Exception):
    """A handshake that had to be trusted was not; the figures would mean nothing."""


def trusted(visit: Visit) -> float:
    """Its milliseconds. Raises Untrusted."""
    if not visit.trusted:
        raise Untrusted(f"a client was not served a trusted certificate (after {visit.milliseconds:.0f} ms)")
    return visit.milliseconds


Measurement = Callable[[Wishes], list[Row]]

# which rows each measurement fills, in the order of the table
MEASUREMENTS: dict[tuple[str, ...], Measurement] = {
    ("unknown", "requests"): unknown_names,
    ("crowd", "managed"): many_names,
    ("cached",): cached_handshakes,
    ("failing",): failing_name,
    ("ca-down",): ca_down,
    ("lag", "lag-crowd"): loop_lags,
    ("one-name",): one_cold_name,
}
