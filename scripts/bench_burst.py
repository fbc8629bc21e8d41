"""A burst: very many unknown names at once, and a cached name beside them.

Knows methods and goals; must not know how a contestant is started.
"""

import asyncio
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from scripts.bench_client import Client, Visit
from scripts.bench_report import Row, percentile
from scripts.bench_stage import Contestant, Stage, new_names
from scripts.bench_words import Untrusted, Wishes, trusted
from tests.servers.mitmdump import Option

NAMES, PAUSE = 1_000, 0.03
_FILES = 8_192  # each client is one, here and in the proxy

_STARTS: dict[str, Callable[[Stage, dict[str, Option]], Contestant]] = {
    "`mitmdump -s`": lambda stage, options: stage.ours(options),
    "`mitmproxy-acme run`": lambda stage, options: stage.run(options),
    "`mitmproxy-acme run --workers 2`": lambda stage, options: stage.run(options, workers=2),
}


def burst(wishes: Wishes) -> list[Row]:
    """Clients in a process of their own, so that what they do is not in the times of the cached name."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))  # the other processes inherit it
    stock = _stock(wishes)
    return [_burst(wishes, started, start, stock) for started, start in _STARTS.items()]


def _stock(wishes: Wishes) -> float:
    """Return how many seconds stock mitmdump takes, which signs a certificate for each name itself."""
    wishes.say(f"{NAMES} unknown names at once: stock mitmdump, which signs for them itself")
    with Stage() as stage, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
        server = stage.stock(new_names(1)[0])
        root = server.own_root()
        others.submit(_crowd, root, server.https_port, new_names(1)).result()
        visits, seconds = others.submit(_crowd, root, server.https_port, new_names(NAMES)).result()
    _require_trust(visits)
    return seconds


def _burst(wishes: Wishes, started: str, start: Callable[[Stage, dict[str, Option]], Contestant], stock: float) -> Row:
    wishes.say(f"{NAMES} unknown names at once, and a cached one beside them: {started}")
    # Held until the last one has its certificate: it is the orders that are measured, not who gives up.
    options: dict[str, Option] = {"acme_handshake_wait": 120}
    with Stage() as stage, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
        proxy = start(stage, options)
        cached = new_names(1)[0]
        trusted(proxy.client.visit(proxy.port, cached))
        others.submit(_crowd, proxy.pebble.root(), proxy.port, [cached]).result()  # what it imports is not part of it
        begun = time.perf_counter()
        crowd = others.submit(_crowd, proxy.pebble.root(), proxy.port, new_names(NAMES))
        beside = _visit_until(crowd, proxy.client, proxy.port, cached, begun)
        visits, seconds = crowd.result()
    _require_trust(visits)
    late = [milliseconds for at, milliseconds in beside if at >= 1]
    times = sorted(visit.milliseconds / 1_000 for visit in visits)
    p50, p99 = statistics.median(late), percentile(late, 99)
    told = f"{seconds:.1f} s, the median name {statistics.median(times):.1f} s; the cached name p50 {p50:.0f} ms, "
    return Row(
        "burst",
        f"{NAMES:,} unknown names at once, the last one done; a cached name meanwhile; started by {started}",
        f"{told}p99 {p99:.0f} ms, most {max(late):.0f} ms",
        f"stock mitmdump {stock:.1f} s, without a CA",
        seconds / stock,
        "under 20 s; p99 under 50 ms",
        seconds < 20 and p99 < 50,
        f"{NAMES:,} clients on one event loop of another process, all connecting at once, each trusting; beside "
        f"them one visit after the other to a cached name, {PAUSE * 1_000:.0f} ms apart, of which the {len(late)} "
        "count that began after the first second: until then mitmproxy takes the connections.",
        {"names_s": times, "cached_ms": beside},
    )


def _require_trust(visits: Sequence[Visit]) -> None:
    """Raise ``Untrusted`` unless every client was served a trusted certificate."""
    if lost := sum(not visit.trusted for visit in visits):
        raise Untrusted(f"{lost} of {NAMES} clients were not served a trusted certificate")


def _crowd(root: str, port: int, names: Sequence[str]) -> tuple[list[Visit], float]:
    """Return the visits, and the seconds until the last one was done."""
    client, begun = Client(root), time.perf_counter()
    visits = asyncio.run(client.crowd(port, names))
    return visits, time.perf_counter() - begun


def _visit_until(
    crowd: Future[tuple[list[Visit], float]], client: Client, port: int, name: str, begun: float
) -> list[tuple[float, float]]:
    """Visit a name until the crowd is done; return for each visit when it began, in seconds, and its milliseconds."""
    visits = []
    while not crowd.done():
        at = time.perf_counter() - begun
        visits.append((at, trusted(client.visit(port, name))))
        time.sleep(PAUSE)
    return visits
