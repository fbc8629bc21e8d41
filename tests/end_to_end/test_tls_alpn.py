"""tls-alpn-01 (RFC 8737): validated on the port of normal traffic, with no other port open."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mitmproxy.io import FlowReader
from OpenSSL import SSL

from tests.end_to_end.client import handshake, handshakes, negotiate, untrusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import ChallTestSrv, Pebble

PROTOCOL = b"acme-tls/1"


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    """A CA that cannot reach port 80: it validates only over TLS."""
    need("pebble")
    with Pebble(dns, http_port=free_port(), tls_port=free_port()) as server:
        yield server


def test_certificate_without_port_80(
    proxy: StartProxy, ca: Pebble, fresh_name: Callable[[], str], tmp_path: Path
) -> None:
    """Twenty names at once are validated on the TLS port, while it serves them, without a flow or a log line."""
    saved = tmp_path / "flows"
    running = proxy(
        ca=ca,
        https_port=ca.tls_port,
        http_port=free_port(),
        acme_challenges=["tls-alpn-01"],
        save_stream_file=str(saved),
    )
    names = [fresh_name() for _ in range(20)]
    served = handshakes(running.https_port, names, ca.root())
    assert [visit.names for visit in served] == [[name] for name in names]
    assert ca.seen().by_path["/chalZ/"] >= 20
    running.stop()
    with saved.open("rb") as file:
        flows = list(FlowReader(file).stream())
    assert [flow for flow in flows if flow.client_conn.sockname[1] == running.https_port] == []
    assert "handshake failed" not in running.log_text()
    assert "server connect" not in running.log_text()


def test_first_challenge_that_the_ca_offers_is_taken(
    proxy: StartProxy, ca: Pebble, fresh_name: Callable[[], str]
) -> None:
    """With port 80 closed to the CA, http-01 as first choice fails and the log says so; as second it is not needed."""
    running = proxy(ca=ca, https_port=ca.tls_port, http_port=free_port(), acme_challenges=["tls-alpn-01", "http-01"])
    handshake(running.https_port, fresh_name(), ca.root())
    other = proxy(ca=ca, http_port=free_port(), acme_challenges=["http-01", "tls-alpn-01"])
    name = fresh_name()
    untrusted(other.https_port, name)
    assert f"{name}: no certificate" in other.log_text()


def test_stranger_who_asks_for_a_challenge_gets_none(
    proxy: StartProxy, ca: Pebble, fresh_name: Callable[[], str]
) -> None:
    """A name of ours without an order is rejected, costs no order, and is served to other clients as before."""
    running = proxy(ca=ca, https_port=ca.tls_port, http_port=free_port(), acme_challenges=["tls-alpn-01"])
    known = fresh_name()
    handshake(running.https_port, known, ca.root())
    before = ca.seen()
    for name in (known, fresh_name()):
        with pytest.raises(SSL.Error):
            negotiate(running.https_port, name, alpn=[PROTOCOL])
    assert (ca.seen() - before).orders == 0
    assert negotiate(running.https_port, known, root=ca.root(), alpn=[PROTOCOL, b"http/1.1"]).alpn == b"http/1.1"


def test_stranger_at_another_node_spoils_no_order(
    proxy: StartProxy, ca: Pebble, fresh_name: Callable[[], str], tmp_path: Path
) -> None:
    """A stranger asks one node, which the CA will validate at, for a name that another node then orders."""
    shared = tmp_path / "shared"
    validated = proxy(
        ca=ca, storage=shared, https_port=ca.tls_port, http_port=free_port(), acme_challenges=["tls-alpn-01"]
    )
    ordering = proxy(ca=ca, storage=shared, http_port=free_port(), acme_challenges=["tls-alpn-01"])
    for _ in range(3):
        name = fresh_name()
        with pytest.raises(SSL.Error):
            negotiate(validated.https_port, name, alpn=[PROTOCOL])
        assert handshake(ordering.https_port, name, ca.root()).names == [name]
