"""Proxies change their storage under load: no handshake fails, and nothing is ordered twice."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import default_options
from tests.end_to_end.test_copy import Commands
from tests.servers import stores
from tests.servers.binaries import need
from tests.servers.forked import ForkedWeb
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_KNOWN = 20


class Visitors:
    """Clients that visit known names and new ones all the time; what each was served is kept."""

    def __init__(self, proxies: list[ForkedWeb], root: str, known: list[str], fresh_name: FreshName) -> None:
        self.served: dict[str, set[int]] = {}
        self.failed: list[str] = []
        self._proxies = proxies
        self._root = root
        self._known = known
        self._fresh_name = fresh_name
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def visit_known(self, number: int) -> None:
        while not self._stopping.is_set():
            for name in self._known[number::2]:
                for proxy in self._proxies:
                    self._visit(proxy, name)
                    time.sleep(0.02)  # some fifty visits a second: an order must have its turn too

    def visit_new(self, number: int) -> None:
        while not self._stopping.is_set():
            with self._lock:
                name = self._fresh_name()
            self._visit(self._proxies[number % len(self._proxies)], name)

    def stop(self) -> None:
        self._stopping.set()

    def _visit(self, proxy: ForkedWeb, name: str) -> None:
        try:
            serial = handshake(proxy.https_port, name, self._root, timeout=45).leaf.serial_number
        except OSError as error:
            self.failed.append(f"{name}: {error}")
        else:
            with self._lock:
                self.served.setdefault(name, set()).add(serial)


@pytest.mark.parametrize("nodes", [1, 2])
def test_switch_to_redis_under_load(
    dns: ChallTestSrv, upstream: Upstream, tmp_path: Path, fresh_name: FreshName, nodes: int
) -> None:
    """From a folder to Redis, by changing acme_storage while a copy follows; all validations come to the first node."""
    need("pebble")
    commands = Commands(tmp_path)
    with ExitStack() as stack:
        redis = stack.enter_context(stores.running("redis", tmp_path))
        ca = stack.enter_context(Pebble(dns))
        options = default_options(ca, tmp_path / "one") | {"acme_handshake_wait": 45}
        proxies = [ForkedWeb(upstream.url, options, http_port=port) for port in (ca.http_port, None)[:nodes]]
        for proxy in proxies:
            proxy.environment |= redis.environment
            stack.enter_context(proxy)
        root, known = ca.root(), [fresh_name() for _ in range(_KNOWN)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: handshake(proxies[0].https_port, name, root), known))
        commands.environment |= redis.environment
        visitors = Visitors(proxies, root, known, fresh_name)

        with ThreadPoolExecutor(6) as pool:
            copying = commands.start("copy", "--from", f"file:{tmp_path}/one", "--to", redis.url, "--follow", "--json")
            stack.callback(copying.kill)
            visits = [pool.submit(work, n) for n in range(2) for work in (visitors.visit_known, visitors.visit_new)]
            with closing(open_storage(redis.open_url, default_folder=tmp_path)) as destination:
                eventually(lambda: len(destination.keys("certificates/")) > _KNOWN, timeout=30)
            switched = time.monotonic()
            for proxy in proxies:
                assert proxy.change(acme_storage=redis.url)[0] == 200
            before = len(visitors.served)
            eventually(lambda: len(visitors.served) > before + 20, timeout=60)
            visitors.stop()
            for visit in visits:
                visit.result()
        print(f"{len(visitors.served)} names, {time.monotonic() - switched:.1f} s after the switch", file=sys.stderr)
        copying.kill()
        copying.communicate()

        assert visitors.failed == []
        assert {name: len(serials) for name, serials in visitors.served.items() if len(serials) > 1} == {}
        assert ca.seen().orders == ca.seen().certificates == len(visitors.served)
        done = commands("copy", "--from", f"file:{tmp_path}/one", "--to", redis.url)
        assert done.returncode == 0, done.stderr
        with closing(open_storage(redis.open_url, default_folder=tmp_path)) as destination:
            for name, (serial,) in visitors.served.items():
                record = destination.get(f"certificates/{name}")
                assert record is not None
                assert Certificate.from_record(ServerName(name), record).leaf.serial_number == serial
        assert all("Traceback" not in proxy.log_text() for proxy in proxies)
