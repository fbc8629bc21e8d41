"""Names that no client asks for: not renewed, shown as idle, and served again to the next client; with a real CA."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from acme_storage import open_storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.usage_marks import Usage, UsageMarks
from tests.end_to_end.admin import Api
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy
from tests.end_to_end.test_cluster import node
from tests.servers import forked, stores
from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_LIFE = 20  # seconds: renewed after half of it, which leaves time to write marks (five seconds)
_OPTIONS = {"acme_renew_before": "50%"}


def test_idle_name_expires_and_the_next_client_is_served(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """A name that one client asked for once is renewed once, then idle; a managed one goes on. No alarm is raised.

    The list, the page's API and the metrics say idle; after its end the next client gets a new certificate, which is a
    renewal for the CA.
    """
    port = free_port()
    with Pebble(dns, profiles={"short": _LIFE}) as ca:
        name, managed, root = fresh_name(), fresh_name(), ca.root()
        running = proxy(
            ca=ca,
            acme_certificates=[managed],
            acme_admin_listen=f"127.0.0.1:{port}",
            **_OPTIONS,  # type: ignore[arg-type]  # options only
        )
        api = Api(port, token="")
        first = handshake(running.https_port, name, root).leaf

        eventually(lambda: f"{name}: not renewed: no client has asked for it" in running.log_text(), timeout=45)
        document = api("GET", f"/acme/certificates/{name}").document["data"]
        assert document["state"] == "idle"
        assert document["idle_since_at"]
        assert document["renew_at"] is None
        eventually(lambda: 'mitmproxy_acme_certificates{state="idle"} 1.0' in api("GET", "/metrics").text, timeout=15)
        assert "no client since" in _list(running)

        eventually(lambda: not _is_valid(api, name), timeout=45)
        assert api("GET", f"/acme/certificates/{name}").document["data"]["state"] == "idle"
        served = handshake(running.https_port, name, root).leaf
        assert served.serial_number != first.serial_number
        assert handshake(running.https_port, managed, root).names == [managed]
        log = running.log_text()
        assert log.count(f"{name}: certificate by") == 3
        assert log.count(f"{managed}: certificate by") >= 3
        assert "certificate expires in" not in log
        assert "Traceback" not in log


def _is_valid(api: Api, name: str) -> bool:
    return bool(api("GET", f"/acme/certificates/{name}").document["data"]["valid"])


def _list(running: Mitmdump) -> str:
    """Return what the command line lists as idle, from the storage."""
    program = str(Path(sys.executable).with_name("mitmproxy-acme"))
    options = [f"{name}={running.options[name]}" for name in ("acme_storage", "acme_renew_before")]
    words = [program, "list", "--state", "idle", *(word for option in options for word in ("--set", option))]
    done = forked.run(words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_usage_at_one_of_two_nodes_on_redis_counts(
    dns: ChallTestSrv, upstream: Upstream, tmp_path: Path, fresh_name: FreshName
) -> None:
    """A name that clients ask for only at the second node is renewed again and again; one without clients is not.

    Each has one mark, however often it was asked for.
    """
    with ExitStack() as stack:
        place = stack.enter_context(stores.running("redis", tmp_path))
        ca = stack.enter_context(Pebble(dns, profiles={"short": _LIFE}))
        nodes = [node(place, ca, upstream, port, **_OPTIONS) for port in (ca.http_port, None)]
        for running in nodes:
            stack.callback(running.close)
            running.start()
        visited, idle, root = fresh_name(), fresh_name(), ca.root()
        for name in (visited, idle):
            handshake(nodes[0].https_port, name, root)

        def orders(name: str) -> int:
            return sum(running.log_text().count(f"{name}: certificate by") for running in nodes)

        def visit() -> bool:
            handshake(nodes[1].https_port, visited, root)
            time.sleep(0.2)
            return orders(visited) >= 5

        eventually(visit, timeout=90)
        assert orders(idle) == 2
        marks = UsageMarks(open_storage(place.open_url, default_folder=tmp_path))
        found = {name: marks.get(ServerName(name)) for name in (visited, idle)}
        assert [mark.usage for mark in found.values() if mark is not None] == [Usage.USED, Usage.IDLE]

        assert handshake(nodes[1].https_port, idle, root).names == [idle]
        assert handshake(nodes[0].https_port, idle, root).names == [idle]
        assert orders(idle) == 3
