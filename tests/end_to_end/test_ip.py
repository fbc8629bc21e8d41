"""Certificates for addresses (RFC 8738), for clients that send no name: IPv4, and IPv6 if the machine has it."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pytest

from acme_storage import Storage
from acme_storage.memory import Memory
from mitmproxy_acme.ca.capabilities import Capabilities
from mitmproxy_acme.ca.issuer import Issuer
from mitmproxy_acme.ca.known_cas import CaInfo
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.end_to_end.admin import TOKEN, Api
from tests.end_to_end.client import Served, eventually, handshake, pem, untrusted, window
from tests.end_to_end.conftest import default_options
from tests.end_to_end.test_cli import Command
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port, has_ipv6
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import DAY, ChallTestSrv, Pebble, can_be_replaced
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

IPV4, IPV6 = "127.0.0.1", "::1"
ADDRESSES = (IPV4, IPV6) if has_ipv6() else (IPV4,)
_PROFILES = {"classic": 90 * DAY, "shortlived": 20}


class StartEdge(Protocol):
    """Start a proxy on the ports at which the CA validates, on IPv4 and IPv6; ``options`` override the defaults."""

    def __call__(self, **options: Option) -> Mitmdump: ...


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    need("pebble")
    with Pebble(dns, profiles=_PROFILES) as server:
        yield server


@pytest.fixture
def edge(ca: Pebble, upstream: Upstream, tmp_path: Path) -> Iterator[StartEdge]:
    with ExitStack() as stack:

        def start(**options: Option) -> Mitmdump:
            ours: dict[str, Option] = {"acme_ip_certificates": True, "acme_ca": [f"{ca.directory};profile=classic"]}
            more = [address for address in ADDRESSES if address != IPV4]
            modes = [f"reverse:{upstream.url}@{at}:{port}" for at in more for port in (ca.tls_port, ca.http_port)]
            running = Forked(
                upstream.url,
                default_options(ca, tmp_path / "store") | ours | options,
                http_port=ca.http_port,
                https_port=ca.tls_port,
                arguments=[word for mode in modes for word in ("--mode", mode)],
            )
            running.environment["T"] = TOKEN
            return stack.enter_context(running)

        yield start


def reach(running: Mitmdump, address: str, ca: Pebble) -> Served:
    """Connect as a client that knows only the address. Raises ``ssl.SSLError`` unless it trusts the certificate."""
    return handshake(running.https_port, address, ca.root(), address=address)


def test_client_without_a_name_trusts_the_address(
    edge: StartEdge, ca: Pebble, store: Storage, fresh_name: FreshName
) -> None:
    """Each address has one order, then is served from memory, after a restart from storage; a name takes precedence."""
    running, before = edge(), ca.seen()
    first = {address: reach(running, address, ca) for address in ADDRESSES}
    assert [(served.names, served.addresses) for served in first.values()] == [([], [at]) for at in ADDRESSES]
    assert store.keys("certificates/") == [f"certificates/{address}" for address in ADDRESSES]
    records = {key: store.get(key) or b"" for key in store.keys("certificates/")}
    for key in records:
        store.delete(key)
    assert all(reach(running, address, ca).leaf == first[address].leaf for address in first)

    for key, record in records.items():
        store.put(key, record)
    running.restart()

    assert all(reach(running, address, ca).leaf == first[address].leaf for address in first)
    assert (ca.seen() - before).orders == len(ADDRESSES)
    name = fresh_name()
    assert handshake(running.https_port, name, ca.root()).names == [name]


def test_address_by_tls_alpn(edge: StartEdge, ca: Pebble, fresh_name: FreshName) -> None:
    """The validator sends the reverse name (RFC 8738 section 6); a managed certificate may have names and addresses."""
    name = fresh_name()
    running = edge(acme_challenges=["tls-alpn-01"], acme_certificates=[f"{name},{IPV4}"])
    for address in ADDRESSES[1:]:
        assert reach(running, address, ca).addresses == [address]
    served = reach(running, IPV4, ca)
    assert (served.names, served.addresses) == ([name], [IPV4])
    assert handshake(running.https_port, name, ca.root()).leaf == served.leaf


def test_nothing_is_ordered_without_the_option(edge: StartEdge, ca: Pebble) -> None:
    """A client without a name gets mitmproxy's certificate, as before."""
    running, before = edge(acme_ip_certificates=False), ca.seen()
    assert "mitmproxy" in untrusted(running.https_port, None).issuer.rfc4514_string()
    assert (ca.seen() - before).orders == 0


def test_short_lived_certificate_of_an_address_is_renewed_by_ari(edge: StartEdge, ca: Pebble) -> None:
    """Ordered with the profile of the options, and renewed in the window of RFC 9773, with that profile again."""
    running = edge(acme_ca=[f"{ca.directory};profile=shortlived"])
    old = reach(running, IPV4, ca).leaf
    ca.set_renewal_info(pem(old), window(-7_200, -3_600))
    before = ca.log_text().count("is a replacement of")

    eventually(lambda: reach(running, IPV4, ca).leaf != old)

    new = reach(running, IPV4, ca).leaf
    assert new.not_valid_before_utc < old.not_valid_after_utc
    lives = [(leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() for leaf in (old, new)]
    assert lives == pytest.approx([20, 20], abs=1)
    assert ca.log_text().count("is a replacement of") - before == int(can_be_replaced(old))


async def test_profile_that_the_ca_demands_for_addresses(dns: ChallTestSrv) -> None:
    """It overrides that of the options, for addresses only."""
    with Pebble(dns, profiles=_PROFILES, always_valid=True) as ca:
        entry = CaSettings(ca.directory, profile="classic", ca_bundle=str(ca.ca_bundle))
        authority = CaInfo(ca.directory, capabilities=Capabilities(ip_profile="shortlived"))
        config = Config.from_options({"acme_tos_accepted": True})
        store, threads = Store(Memory(), UNSEALED), ThreadPools()
        issuer = Issuer(config, entry, authority, store, threads, backed=False)
        names = ServerName(IPV6), ServerName("a.example.test")
        lives = [(await issuer.obtain(Subject((name,)))).lifetime for name in names]
        threads.close()
    assert lives == pytest.approx([20, 90 * DAY], abs=1)


def test_profile_that_the_ca_does_not_list(edge: StartEdge, ca: Pebble) -> None:
    """Nothing is ordered, and the log has the profiles that it offers."""
    running, before = edge(acme_ca=[f"{ca.directory};profile=shortlive"]), ca.seen()
    with pytest.raises(ssl.SSLCertVerificationError):
        reach(running, IPV4, ca)
    assert "offers no profile 'shortlive'; it offers classic, shortlived; next attempt in" in running.log_text()
    assert (ca.seen() - before).orders == 0


def test_address_in_the_place_of_a_name(edge: StartEdge) -> None:
    """The API and the command accept it, IPv6 in a path percent-encoded; an invalid address gets a plain error."""
    api = Api(free_port())
    running = edge(acme_admin_listen=f"127.0.0.1:{api.port}", acme_admin_token="env:T")
    command = Command(running)

    for address in ADDRESSES:
        assert api.create(address).message == f"certificate for host {address} is created"
        assert api("GET", f"/acme/certificates/{quote(address)}").document["data"]["names"] == [address]
    assert command("issue", IPV4).code == 0
    assert command("show", "--json", ADDRESSES[-1]).document["host"] == ADDRESSES[-1]
    assert command("revoke", "--yes", IPV4).code == 0
    assert api("GET", f"/acme/certificates/{IPV4}").status == 404
    assert api.create("192.0.2.1:443").message == "port is not allowed in host"
    assert "fe80::1' is an IP address; write" in command("show", "fe80::1").err
