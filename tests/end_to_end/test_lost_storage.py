"""A storage that comes back empty: the certificates that nodes hold are stored again, and none is ordered twice."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.keys import is_mark_key
from tests.end_to_end.client import eventually, handshakes
from tests.end_to_end.test_cluster import node
from tests.servers.base import started
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.redis import Redis
from tests.servers.stores import Place
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_MENDED = 10.0  # seconds; a node looks every three


@pytest.mark.parametrize("down", [0.0, 4.0])
def test_redis_that_keeps_nothing_costs_no_order(
    dns: ChallTestSrv, upstream: Upstream, fresh_name: FreshName, down: float
) -> None:
    """Killed and restarted, at once or after an outage: all is there again, with the schedule, also for a new node."""
    managed, names = [[fresh_name() for _ in range(5)] for _ in range(2)]
    with ExitStack() as stack:
        redis = stack.enter_context(started(Redis("appendonly no")))
        ca = stack.enter_context(Pebble(dns))
        place = Place("redis", "redis://127.0.0.1:{}".format, redis, redis.port)
        ports = (ca.http_port, None, None)
        one, two, new = [node(place, ca, upstream, port, acme_certificates=managed) for port in ports]
        for running in (one, two, new):
            stack.callback(running.close)
        one.start()
        root = ca.root()
        issued = _serials(one.https_port, [*managed, *names], root)
        two.start()
        assert _serials(two.https_port, list(issued), root) == issued
        store = stack.enter_context(closing(open_storage(place.open_url, default_folder=Path("/none"))))
        eventually(lambda: any(is_mark_key(key) for key in store.keys("changes/")))

        redis.kill()
        time.sleep(down)
        redis.start()

        eventually(lambda: _stored(store) == issued, timeout=_MENDED)
        assert {key.rpartition("~")[2] for key in store.keys("calendar/")} == set(issued)
        new.start()
        assert _serials(new.https_port, list(issued), root) == issued
        assert ca.seen().orders == len(issued)
        said = "".join(running.log_text() for running in (one, two))
        assert "the storage has lost certificates" in said
        assert "Traceback" not in said


def _serials(port: int, names: list[str], root: str) -> dict[str, int]:
    """Visit names all at once; return the serial number that each was served."""
    return {served.names[0]: served.leaf.serial_number for served in handshakes(port, names, root)}


def _stored(store: Storage) -> dict[str, int]:
    records = {key.removeprefix("certificates/"): store.get(key) for key in store.keys("certificates/")}
    return {
        name: Certificate.from_record(ServerName(name), record).leaf.serial_number
        for name, record in records.items()
        if record is not None
    }
