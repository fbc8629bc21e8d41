"""Caddy's ACME server, whose code is step-ca's: a third CA that shares nothing with the others.

It validates as it is asked to, within that request, and leaves a name that fails pending, for the client to ask again
(RFC 8555 section 8.2).
"""

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.admin import with_api
from tests.end_to_end.client import eventually, handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port, started
from tests.servers.caddy import CaddyCa

type FreshName = Callable[[], str]

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def ca() -> Iterator[CaddyCa]:
    with started(CaddyCa()) as server:
        yield server


def test_first_handshake_and_revocation(proxy: StartProxy, ca: CaddyCa, fresh_name: FreshName) -> None:
    """Names never seen before are validated by http-01, in seven requests each; the account revokes one."""
    running, api = with_api(proxy, ca=ca)
    names = [fresh_name() for _ in range(4)]
    handshake(running.https_port, names[0], ca.root())
    before = ca.asked()
    served = handshakes(running.https_port, names[1:], ca.root())
    assert [visit.names for visit in served] == [[name] for name in names[1:]]
    assert (ca.asked() - before).total() <= 3 * 7
    assert api("DELETE", f"/acme/certificates/{names[0]}?reason=superseded").status == 204
    assert ca.asked()["revoke-cert"] == 1


def test_name_that_cannot_be_validated(proxy: StartProxy, ca: CaddyCa, fresh_name: FreshName) -> None:
    """Its challenge is asked for three times, and then it is refused: within seconds, and with few requests."""
    running, name = proxy(ca=ca, http_port=free_port()), fresh_name()  # the CA finds no server where it validates
    before = ca.asked()
    assert not is_trusted(running.https_port, name, ca.root())
    asked = ca.asked() - before
    assert f"{name}: no certificate: {ca.directory} could not validate {name}: connection: " in running.log_text()
    assert (asked["new-order"], asked["challenge"]) == (1, 3)
    assert asked["authz"] < 8

    assert not is_trusted(running.https_port, name, ca.root())
    assert ca.asked()["new-order"] - before["new-order"] == 1


def test_address(proxy: StartProxy, ca: CaddyCa) -> None:
    """It issues for addresses (RFC 8738)."""
    running = proxy(ca=ca, acme_certificates=["203.0.113.7"])
    eventually(lambda: "203.0.113.7: certificate by Caddy" in running.log_text())


def test_tls_alpn(proxy: StartProxy, ca: CaddyCa) -> None:
    """It validates an address by tls-alpn-01, with nothing else open to it; at port 443, if we may listen there."""
    try:
        socket.create_server((ADDRESS, 443)).close()
    except OSError:
        pytest.skip("this user may not listen on port 443, or somebody else does")
    running = proxy(
        ca=ca, https_port=443, http_port=free_port(), acme_challenges=["tls-alpn-01"], acme_ip_certificates=True
    )
    handshake(running.https_port, ADDRESS, ca.root())  # which looks for the address in the certificate


def test_dns(proxy: StartProxy, ca: CaddyCa, fresh_name: FreshName) -> None:
    """It validates a name and its wildcard by dns-01, and asks this proxy for the record."""
    name = fresh_name()
    names = f"{name},*.{name}"
    running = proxy(ca=ca, dns_port=ca.dns_port, acme_challenges=["dns-01"], acme_certificates=[names], acme_domains=[])
    assert set(handshake(running.https_port, f"www.{name}", ca.root()).names) == {name, f"*.{name}"}
