"""Storage that goes away: what is in memory is served, nothing is ordered, and it goes on when storage is back.

Each server is stopped, killed, paused, black-holed and cut in the middle of writes. The stores are tried side by side,
for most of it is waiting.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from tests.end_to_end.client import eventually, handshake, is_trusted
from tests.end_to_end.test_cluster import node
from tests.servers import stores
from tests.servers.base import Server
from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.stores import Place
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_BACK_WITHIN = 5.0  # seconds
_AT_ONCE = 1.8  # once the outage is known; two seconds pass until a silent server is
_DOWN = "storage is down, so nothing is ordered"
_BACK = "storage is back"
_MID_WRITE = 1_500  # bytes: a certificate is longer


@dataclass
class Outage:
    """One proxy, and its store behind a proxy of ours that may break the way to it."""

    place: Place
    way: Chaos
    ca: Pebble
    proxy: Mitmdump
    issued: dict[str, int]  # name -> serial number, of everything that was served

    def serve(self, name: str) -> None:
        self.issued[name] = handshake(self.proxy.https_port, name, self.ca.root()).leaf.serial_number

    @property
    def server(self) -> Server:
        assert self.place.server
        return self.place.server

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.server.pause()
        try:
            yield
        finally:
            self.server.resume()

    @contextmanager
    def black_holed(self) -> Iterator[None]:
        self.way.blackhole()
        try:
            yield
        finally:
            self.way.heal()

    @contextmanager
    def refused(self) -> Iterator[None]:
        self.way.refuse()
        try:
            yield
        finally:
            self.way.heal()


@pytest.fixture(scope="module")
def outages(dns: ChallTestSrv, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Outage]]:
    """One on each server."""
    with ExitStack() as stack:

        def prepare(kind: str) -> Outage:
            place = stack.enter_context(stores.running(kind, tmp_path_factory.mktemp(kind)))
            way = stack.enter_context(Chaos(place.port))
            ca = stack.enter_context(Pebble(dns))
            behind = Place(kind, place.url_at, place.server, way.port, place.environment)
            proxy = stack.enter_context(node(behind, ca, upstream, ca.http_port))
            return Outage(place, way, ca, proxy, {})

        yield [prepare(kind) for kind in stores.SERVERS]


def side_by_side(outages: list[Outage], test: Callable[[Outage], None]) -> None:
    """Run the test on all of them, and raise what the first of them raises, with its name."""
    with ThreadPoolExecutor(len(outages)) as pool:
        runs = {outage.place.kind: pool.submit(test, outage) for outage in outages}
    for kind, run in runs.items():
        if (error := run.exception()) is not None:
            error.add_note(f"on {kind}")
            raise error


def test_server_that_goes_away(outages: list[Outage], fresh_name: FreshName) -> None:
    """In every way: what is in memory is served on, cold names get the fallback at once, no order is placed; said once.

    When it is back, names are obtained within five seconds, and nothing that was stored is lost.
    """

    def endure(outage: Outage) -> None:
        proxy, root = outage.proxy, outage.ca.root()
        for way in (outage.stopped, outage.killed, outage.paused, outage.black_holed, outage.refused):
            known = fresh_name()
            outage.serve(known)
            orders, said = outage.ca.seen().orders, len(proxy.log_text())
            with way():
                is_trusted(proxy.https_port, fresh_name(), root)  # one of the two notices it
                eventually(lambda: _DOWN in proxy.log_text()[said:])  # noqa: B023  # called at once
                eventually(lambda: _refuses_at_once(proxy, fresh_name(), root))
                for _ in range(2):
                    assert _refuses_at_once(proxy, fresh_name(), root), way.__name__
                    assert handshake(proxy.https_port, known, root).leaf.serial_number == outage.issued[known]
            back = time.monotonic()
            new = fresh_name()
            eventually(lambda: is_trusted(proxy.https_port, new, root))  # noqa: B023  # called at once
            # An outage may be over before anybody looks again: then names are had before it is said.
            eventually(lambda: _BACK in proxy.log_text()[said:])  # noqa: B023  # called at once
            assert time.monotonic() - back < _BACK_WITHIN, way.__name__
            outage.serve(new)
            assert outage.ca.seen().orders == orders + 1, way.__name__
            text = proxy.log_text()[said:]
            assert (text.count(_DOWN), text.count(_BACK)) == (1, 1), way.__name__
        _nothing_is_lost(outage)

    side_by_side(outages, endure)


def _refuses_at_once(proxy: Mitmdump, name: str, root: str) -> bool:
    begun = time.monotonic()
    assert not is_trusted(proxy.https_port, name, root)
    return time.monotonic() - begun < _AT_ONCE


def test_connections_cut_in_the_middle_of_writes(outages: list[Outage], fresh_name: FreshName) -> None:
    """Each connection ends in the middle of a certificate: what was issued is served, and stored whole in the end."""

    def endure(outage: Outage) -> None:
        proxy, root = outage.proxy, outage.ca.root()
        outage.serve(fresh_name())  # so that the account is there
        outage.way.cut_after(_MID_WRITE)
        outage.way.reset()
        names = [fresh_name() for _ in range(5)]
        for name in names:
            is_trusted(proxy.https_port, name, root)
        outage.way.heal()
        back = time.monotonic()
        for name in names:
            eventually(lambda: is_trusted(proxy.https_port, name, root), timeout=15)  # noqa: B023  # a lease may be left
            outage.serve(name)
        assert time.monotonic() - back < 15
        certificates = outage.ca.seen().certificates
        eventually(lambda: len(_stored(outage)) == len(outage.issued), timeout=_BACK_WITHIN)
        assert certificates == len(outage.issued)
        _nothing_is_lost(outage)

    side_by_side(outages, endure)


def _stored(outage: Outage) -> dict[str, int]:
    """What is in the store: name -> serial number; every record is whole."""
    store = open_storage(outage.place.open_url, default_folder=Path("/none"))
    try:
        records = {key.removeprefix("certificates/"): store.get(key) for key in store.keys("certificates/")}
    finally:
        store.close()
    return {
        name: Certificate.from_record(ServerName(name), record).leaf.serial_number
        for name, record in records.items()
        if record is not None
    }


def _nothing_is_lost(outage: Outage) -> None:
    """A new process serves all that was issued, from the store."""
    assert _stored(outage) == outage.issued
    orders = outage.ca.seen().orders
    outage.proxy.restart()
    for name, serial in outage.issued.items():
        assert handshake(outage.proxy.https_port, name, outage.ca.root()).leaf.serial_number == serial
    assert outage.ca.seen().orders == orders
