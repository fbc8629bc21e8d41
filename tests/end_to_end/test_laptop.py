"""A laptop that the CA cannot reach: the three ways of docs/how-to/laptop.md."""

from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.client import eventually, get
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.chaos import Chaos
from tests.servers.forked import ForkedServe
from tests.servers.mitmdump import Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.powerdns import PowerDns
from tests.servers.unbound import Unbound
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

ZONE = "acme.example.test"


def laptop(ca: Pebble, folder: Path, name: str, to: Upstream, *flags: str, **options: Option) -> ForkedServe:
    """Prepare ``serve`` with nothing at the port where the CA validates http-01."""
    everything: dict[str, Option] = {
        "acme_ca": ca.directory,
        "acme_ca_bundle": str(ca.ca_bundle),
        "acme_storage": f"file:{folder}",
        "acme_admin_listen": "",
        **options,
    }
    return ForkedServe([name, "--to", to.url], everything, http_port=free_port(), arguments=["--agree-tos", *flags])


def test_provider_publishes_for_a_wildcard(tmp_path: Path, upstream: Upstream, fresh_name: FreshName) -> None:
    """``--dns-provider`` validates by dns-01, and ``*.`` is one certificate, held from the start."""
    need("pebble", "unbound", "pdns_server")
    zone = f"p.{fresh_name()}"
    with PowerDns(zone) as nameserver, Unbound({zone: [nameserver.port]}) as resolver, Pebble(resolver) as ca:
        serving = laptop(ca, tmp_path, f"*.{zone}", upstream, "--dns-provider", "powerdns")
        serving.options["acme_dns_resolvers"] = [resolver.address]
        serving.environment |= {
            "LEXICON_POWERDNS_PDNS_SERVER": nameserver.url,
            "LEXICON_POWERDNS_AUTH_TOKEN": nameserver.key,
        }
        with serving:
            eventually(lambda: "certificate  valid until" in serving.log.read_text(), timeout=30)
            assert "hello" in get(serving.https_port, f"phone.{zone}", ca.root())
            assert ca.seen().certificates == 1


def test_other_machine_answers_in_dns(
    proxy: StartProxy, tmp_path: Path, upstream: Upstream, fresh_name: FreshName
) -> None:
    """The laptop orders, and a machine on the internet shows the record that it finds in the storage."""
    need("pebble", "unbound")
    name, dns_port = fresh_name(), free_port()
    alias = f"_acme-challenge.{name}. CNAME {name}.{ZONE}."
    with Unbound({ZONE: [dns_port]}, [alias]) as resolver, Pebble(resolver) as ca:
        proxy(
            ca=ca,
            storage=tmp_path / "shared",
            dns_port=dns_port,
            acme_on_demand="off",
            acme_challenges=["dns-01"],
            acme_dns_zone=ZONE,
        )
        flags = ["--challenge", "dns-01", "--dns-port", "off"]
        with laptop(ca, tmp_path / "shared", name, upstream, *flags, acme_dns_zone=ZONE) as serving:
            eventually(lambda: "certificate  valid until" in serving.log.read_text(), timeout=30)
            assert "hello" in get(serving.https_port, name, ca.root())


def test_tunnel_that_passes_tls_needs_port_443_alone(
    tmp_path: Path, upstream: Upstream, fresh_name: FreshName, dns: ChallTestSrv
) -> None:
    """The CA validates by tls-alpn-01 through the tunnel, by which clients come too; nothing listens for HTTP."""
    name = fresh_name()
    serving_port = free_port()
    tunnel = Chaos(serving_port)
    with tunnel, Pebble(dns, tls_port=tunnel.port) as ca:
        serving = laptop(ca, tmp_path, name, upstream)
        serving.https_port, serving.has_http = serving_port, False
        with serving:
            eventually(lambda: "certificate  valid until" in serving.log.read_text(), timeout=30)
            assert "hello" in get(tunnel.port, name, ca.root())
