"""What a cached handshake costs: CPU, side by side with stock mitmdump and Caddy.

Knows the method and the goals; must not know how a contestant is started.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scripts.bench_client import Client, settled_cpu_ms
from scripts.bench_report import Row, spread
from scripts.bench_stage import ZONE, Stage
from scripts.bench_words import Wishes, trusted

HANDSHAKES = 40  # in one round of one contestant


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
