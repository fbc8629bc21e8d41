"""What answers where the proxy should be the nameserver of its zone: the proxy, another program, half of it, or
nothing.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from mitmproxy_acme.ca import dns_lookup
from mitmproxy_acme.ca.dns_lookup import NoAnswer
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.diagnostics import nameservers
from mitmproxy_acme.diagnostics.finding import Finding, Severity
from tests.servers.base import free_port
from tests.servers.forked import Forked
from tests.servers.mitmdump import Option

ZONE, HOST = "acme.example.test", "proxy.example.test"
_CHOSEN: dict[str, Any] = {
    "acme_challenges": ("dns-01",),
    "acme_certificates": ("*.example.test",),
    "acme_dns_zone": ZONE,
    "acme_dns_nameservers": (HOST,),
    "acme_tos_accepted": True,
}


class Addresses:
    """DNS in which every host has these addresses; without any, none answers."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    def addresses(self, name: str) -> list[str]:
        if not self._addresses:
            raise NoAnswer("the DNS server fails (SERVFAIL)")
        return [address for address in self._addresses if address]


def look(port: int, *addresses: str, up: bool = True, **options: Any) -> list[Finding]:
    resolver: Any = Addresses(*addresses)
    return list(nameservers.inspect(Config.from_options(_CHOSEN | options), resolver, port, up=up))


@contextmanager
def udp_only(*, authoritative: bool) -> Iterator[int]:
    """Answer one question with an SOA over UDP, and take no connection."""
    port = free_port()
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))

        def serve() -> None:
            question, client = udp.recvfrom(4_096)
            response = dns.message.make_response(dns.message.from_wire(question))
            response.flags |= dns.flags.AA if authoritative else 0
            soa = f"{ZONE}. hostmaster.{ZONE}. 1 60 60 60 0"
            response.answer.append(dns.rrset.from_text(f"{ZONE}.", 0, "IN", "SOA", soa))
            udp.sendto(response.to_wire(), client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        thread.join()


def test_proxy_answers_over_both(tmp_path: Path) -> None:
    """It is asked for its zone at each address; without a zone, for a name's own delegation."""
    port = free_port()
    options: dict[str, Option] = {
        "acme_ca": ["https://127.0.0.1:1/dir"],
        "acme_storage": f"file:{tmp_path}",
        "acme_tos_accepted": True,
        "acme_domains": ["**.example.test"],
        "acme_challenges": ["dns-01"],
        "acme_dns_zone": ZONE,
    }
    with Forked("http://127.0.0.1:1", options, dns_port=port):
        (zone,) = look(port, "127.0.0.1")
        (name,) = look(port, "127.0.0.1", acme_dns_zone="", acme_certificates=("a.example.test",))
        (wrong,) = look(port, "127.0.0.1", acme_dns_zone="acme.other.test")
    assert (zone.outcome, zone.what) == (
        Severity.PASS,
        f"{HOST}: 127.0.0.1:{port} answers for {ZONE} over UDP and TCP",
    )
    assert (name.outcome, "for _acme-challenge.a.example.test over" in name.what) == (Severity.PASS, True)
    assert (wrong.outcome, "or for another zone (REFUSED for acme.other.test)" in wrong.what) == (Severity.FAIL, True)


def test_half_of_it() -> None:
    """Resolvers fall back to TCP, so both have to be open."""
    with udp_only(authoritative=True) as port:
        (finding,) = look(port, "127.0.0.1")
    assert (finding.outcome, "over UDP and not over TCP; open both" in finding.what) == (Severity.FAIL, True)


def test_resolver_in_its_place() -> None:
    """A server that is not authoritative is not the proxy, which must have the port."""
    with udp_only(authoritative=False) as port:
        (finding,) = look(port, "127.0.0.1")
    assert (finding.outcome, "give that port to mode dns of the proxy" in finding.what) == (Severity.FAIL, True)


@pytest.mark.parametrize(("up", "outcome"), [(False, Severity.WARN), (True, Severity.FAIL)])
def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, up: bool, outcome: Severity) -> None:
    """Before the first start that is no wonder; with a proxy that is up it is wrong."""
    monkeypatch.setattr(dns_lookup, "_NAMESERVER_TIMEOUT", 0.1)
    (finding,) = look(free_port(), "127.0.0.1", up=up)
    assert (finding.outcome, f"does not answer for {ZONE}" in finding.what) == (outcome, True)


def test_host_that_is_not_in_dns() -> None:
    """No CA would find it."""
    (absent,), (silent,) = look(free_port(), ""), look(free_port())
    assert (absent.outcome, "has no address in DNS" in absent.what) == (Severity.FAIL, True)
    assert (silent.outcome, "SERVFAIL" in silent.what) == (Severity.FAIL, True)


@pytest.mark.parametrize(
    "options",
    [{"acme_challenges": ("http-01",), "acme_certificates": ("a.test",)}, {"acme_dns_provider": "powerdns"}],
    ids=["another challenge", "a provider"],
)
def test_nothing_is_looked_at_that_is_not_needed(options: dict[str, Any]) -> None:
    """Only a challenge that the proxy answers in DNS needs the port."""
    assert look(free_port(), "127.0.0.1", acme_dns_zone="", **options) == []
