"""What trouble costs: a name that cannot be validated, a CA that is down, an event loop that is late.

Knows methods and goals; must not know how a contestant is started.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.bench_report import Row, percentile, spread
from scripts.bench_stage import Contestant, Stage, new_names
from scripts.bench_words import PATIENCE, REPEATS, Untrusted, Wishes, trusted
from tests.servers import loop_lag
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Option

VISITS, DOWN, ORDERED = 20, 100, 64


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
