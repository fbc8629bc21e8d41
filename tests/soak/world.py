"""The world of a soak: a CA, a store and the ways to both, an upstream, three nodes; and what goes wrong there.

Knows how each fault is done and undone; must not know when, or what it excuses.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.soak.balancer import Balancer
from tests.soak.faults import CA_KINDS, CLOCK_KINDS, DISK_KINDS, NODE_KINDS, STORE_KINDS, WRONG_CLOCK, Fault, Kind
from tests.soak.issued import Issued
from tests.soak.journal import Journal
from tests.soak.nodes import WithClock, make_nodes
from tests.soak.places import DISKS, filled, running, small_disk
from tests.soak.slow_upstream import SlowUpstream

LIFETIME = 60
"""Seconds that a certificate is valid."""
RENEWED_AFTER = 0.5
"""The part of its lifetime after which it is renewed."""
MANAGED = [f"managed{number}.soak.test" for number in range(8)]
ON_DEMAND = [f"name{number}.soak.test" for number in range(12)]
NAMES = MANAGED + ON_DEMAND

# A reply of a CA that is far away and busy (seconds).
_SLOW = 0.3
_DAY = 86_400


class World:
    """``with World(kind, folder, journal)`` starts everything; the nodes last, and all at once."""

    def __init__(self, store: str, folder: Path, journal: Journal) -> None:
        self._store, self._folder, self._journal = store, folder, journal
        self._stack = ExitStack()
        self._roots = ""
        self.missing: list[str] = []
        """What cannot be done here, a sentence each."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._has_disk = self._store in DISKS and stack.enter_context(small_disk(self._folder / "disk"))
            self.place = stack.enter_context(running(self._store, self._folder / "disk"))
            self._store_way = stack.enter_context(Chaos(self.place.port)) if self.place.server else None
            self.ca = stack.enter_context(Pebble(stack.enter_context(ChallTestSrv()), profiles={"short": LIFETIME}))
            self._ca_way = stack.enter_context(Chaos(self.ca.port))
            self.issued = Issued(self.ca)
            self._add_root()
            upstream = stack.enter_context(SlowUpstream())
            self.nodes = make_nodes(upstream.url, self._options(), self.place.environment)
            for node in self.nodes:
                stack.callback(node.close)
            # Nearest to its end comes first: nothing is validated while the nodes stop.
            stack.enter_context(Balancer(self.ca.http_port, [node.http_port for node in self.nodes]))
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(Mitmdump.start, self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kinds(self) -> list[Kind]:
        """Return what can go wrong here; what cannot is in ``missing``."""
        kinds = [*NODE_KINDS, *CLOCK_KINDS, *CA_KINDS]
        if self.place.server is not None:
            kinds += STORE_KINDS
        elif self._has_disk:
            kinds += DISK_KINDS
        else:
            self.missing.append("no disk is filled: this user may not mount a small filesystem")
        return kinds

    def roots(self) -> str:
        """Return what clients trust: every root that the CA has had, for it makes another when it is restarted."""
        return self._roots

    @contextmanager
    def struck_by(self, fault: Fault) -> Iterator[None]:
        """Do a fault, and undo it: afterwards everything is up again, though nodes may not have noticed."""
        struck = self._journal.strike(fault, time.time())
        ways: dict[str, Callable[[Fault], AbstractContextManager[None]]] = {
            "node": self._strike_node,
            "store": self._strike_store,
            "ca": self._strike_ca,
        }
        try:
            with ways[fault.kind.strikes](fault):
                yield
        finally:
            struck.ended = time.time()

    @contextmanager
    def _strike_node(self, fault: Fault) -> Iterator[None]:
        assert fault.node is not None
        node = self.nodes[fault.node]
        match fault.kind.name:
            case "paused":
                node.pause()
                yield
                node.resume()
            case "killed" | "restarted" as name:
                node.kill() if name == "killed" else node.stop()
                yield
                self._journal.begin_life(fault.node, time.time())
                node.start()
            case name:
                clock = self.nodes[WRONG_CLOCK]
                assert isinstance(clock, WithClock)
                clock.set_clock(_DAY if "ahead" in name else -_DAY)
                yield
                clock.set_clock(0)

    @contextmanager
    def _strike_store(self, fault: Fault) -> Iterator[None]:
        server, way = self.place.server, self._store_way
        if server is None or way is None:
            with filled(self._folder / "disk"):
                yield
            return
        match fault.kind.name:
            case "paused":
                server.pause()
                yield
                server.resume()
            case "killed" | "restarted" as name:
                server.kill() if name == "killed" else server.stop()
                yield
                server.start()
            case name:
                way.blackhole() if name == "black-holed" else way.refuse()
                yield
                way.heal()

    @contextmanager
    def _strike_ca(self, fault: Fault) -> Iterator[None]:
        if fault.kind.name == "slow":
            self._ca_way.delay(_SLOW)
        else:
            self._ca_way.refuse()
        if "restarted" in fault.kind.name:
            self.issued.restart()
            self._add_root()
        yield
        self._ca_way.heal()

    def _add_root(self) -> None:
        self._roots += self.ca.root()

    def _options(self) -> dict[str, Option]:
        url = self.place.url_at(self._store_way.port) if self._store_way else self.place.url
        return {
            "acme_ca": [f"https://localhost:{self._ca_way.port}/dir"],
            "acme_ca_bundle": str(self.ca.ca_bundle),
            "acme_email": "soak@example.com",
            "acme_tos_accepted": True,
            "acme_storage": url,
            "acme_certificates": MANAGED,
            "acme_domains": ["*.soak.test"],
            "acme_fallback": "reject",
            "acme_renew_before": f"{RENEWED_AFTER:.0%}",
            # For lives of a minute: the defaults are for lives of months.
            "acme_fail_backoff": "1s,2s,5s",
            "acme_orders_per_client": "off",
            # So that a download flows while it takes long: mitmproxy would collect it.
            "stream_large_bodies": "1",
        }
