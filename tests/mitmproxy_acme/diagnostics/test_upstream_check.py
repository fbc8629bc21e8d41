"""The upstreams of acme_upstreams, as check finds them: real sockets, and entries whose hosts have no certificate."""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.diagnostics import preflight, upstream_check
from mitmproxy_acme.diagnostics.finding import Finding, Severity, passed, warn
from tests.servers.base import free_port
from tests.servers.ca import ThrowawayCA
from tests.servers.upstream import Upstream


def findings(*upstreams: str, settings: Mapping[str, Any] = {}, **options: Any) -> list[Finding]:
    given = {"acme_tos_accepted": True, "acme_domains": ("**.example.com",)} | options
    return list(upstream_check.inspect(Config.from_options(given | {"acme_upstreams": upstreams}), settings))


def test_upstreams_that_accept_and_refuse() -> None:
    """Each is tried once."""
    closed = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = findings(
            f"a.example.com=http://127.0.0.1:{port}",
            f"b.example.com=http://127.0.0.1:{port}/",
            f"c.example.com=https://127.0.0.1:{closed}",
            "d.example.com=http://no-such-host.invalid",
        )
    assert found == [
        passed(f"acme_upstreams: http://127.0.0.1:{port} accepts connections"),
        warn(
            f"acme_upstreams: https://127.0.0.1:{closed} cannot be reached (Connection refused), so its hosts get 502; "
            "start it"
        ),
        warn(
            "acme_upstreams: http://no-such-host.invalid:80 has a host without an address, so its hosts get 502; "
            "correct its name"
        ),
    ]


def test_https_upstreams(tmp_path: Path) -> None:
    """They are verified as mitmproxy does: by its trusted CAs, for the URL's host, which may be an address."""
    ca = ThrowawayCA(tmp_path / "ca")
    trusted = {"ssl_verify_upstream_trusted_ca": str(ca.bundle)}
    misnamed = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    misnamed.load_cert_chain(*ca.issue("other.internal"))
    with Upstream(tls=ca.server_context()) as good, Upstream(tls=misnamed) as other, Upstream() as plain:
        by_name = f"a.example.com=https://localhost:{good.port}"
        for entry in (by_name, f"a.example.com={good.url}"):
            [found] = findings(entry, settings=trusted)
            assert found == passed(f"acme_upstreams: {entry[14:]} accepts connections, and its certificate is trusted")
        [found] = findings(by_name)
        assert found.outcome is Severity.WARN
        assert "certificate that is not trusted for localhost (unable to get local issuer certificate)" in found.what
        [found] = findings(by_name, settings={"ssl_insecure": "true"})
        assert found == passed(f"acme_upstreams: https://localhost:{good.port} accepts connections")
        [found] = findings(f"a.example.com={other.url}", settings=trusted)
        assert "certificate that is not trusted for 127.0.0.1 (IP address mismatch" in found.what
        [found] = findings(f"a.example.com=https://127.0.0.1:{plain.port}", settings=trusted)
        assert "completes no TLS handshake" in found.what
        missing, found = findings(by_name, settings={"ssl_verify_upstream_trusted_ca": "/no/such/file"})
        assert "cannot be read (No such file or directory), so all https upstreams get 502" in missing.what
        assert found == passed(f"acme_upstreams: https://localhost:{good.port} accepts connections")


def test_check_reports_them(tmp_path: Path) -> None:
    """Among all its findings, after those about the options."""
    settings = {
        "acme_role": "data",
        "acme_domains": ("**.test",),
        "acme_storage": f"file:{tmp_path}",
        "acme_upstreams": (f"a.test=http://127.0.0.1:{free_port()}",),
        "mode": ["reverse:http://127.0.0.1:8000@443"],
    }
    found = [finding.what for finding in preflight.inspect(settings, tmp_path)]
    assert [what for what in found if "so its hosts get 502; start it" in what]


def test_upstream_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog leaves a connection unanswered, as a firewall does."""
    monkeypatch.setattr(upstream_check, "CONNECT_WITHIN", 0.05)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as first, socket.socket() as more:
        for client in (first, more):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        [found] = findings(f"a.example.com=http://127.0.0.1:{server.getsockname()[1]}")
    assert found.what.endswith("does not answer, so its hosts get 502; check its address and firewall")


@pytest.fixture(name="no_connections")
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_check, "_connect", lambda upstream, trust: passed(str(upstream)))


@pytest.mark.usefixtures("no_connections")
@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ("a.test", {"acme_domains": ("a.test",)}),
        ("a.test", {"acme_domains": ("*.test",)}),
        ("a.test", {"acme_allow_any_domain": True}),
        ("a.test", {"acme_domains": (), "acme_certificates": ("b.test,a.test",)}),
        ("192.0.2.1", {"acme_certificates": ("192.0.2.1",)}),
        ("192.0.2.1", {"acme_ip_certificates": True}),
        ("*.b.test", {"acme_domains": ("**.test",)}),
        ("*.b.test", {"acme_domains": ("*.b.test",)}),
        ("*.b.test", {"acme_domains": ("x.b.test",)}),
        ("*.b.test", {"acme_domains": (), "acme_certificates": ("*.b.test",), "acme_challenges": ("dns-01",)}),
        ("**.test", {"acme_domains": ("*.b.test",)}),
        ("re:[ab].test", {"acme_domains": ("a.test",)}),
        ("re:[ab].test", {"acme_domains": ("**.test",)}),
        ("re:[ab].test", {"acme_domains": ("re:c.test",)}),
    ],
)
def test_hosts_that_may_have_a_certificate(hosts: str, options: dict[str, Any]) -> None:
    if "dns-01" in options.get("acme_challenges", ()):
        options = options | {"acme_dns_zone": "acme.test"}
    assert findings(f"{hosts}=http://up", **options) == [passed("http://up:80")]


@pytest.mark.usefixtures("no_connections")
@pytest.mark.parametrize(
    ("hosts", "options", "option"),
    [
        ("a.test", {"acme_domains": ("b.test",)}, "acme_domains"),
        ("a.b.test", {"acme_domains": ("*.test",)}, "acme_domains"),
        ("192.0.2.1", {}, "acme_certificates"),
        ("*.test", {"acme_domains": ("*.b.test", "test")}, "acme_domains"),
        ("**.b.test", {"acme_domains": ("*.test", "b.test")}, "acme_domains"),
        ("re:[ab].test", {"acme_domains": ("c.test",)}, "acme_domains"),
    ],
)
def test_hosts_without_certificate(hosts: str, options: dict[str, Any], option: str) -> None:
    assert findings(f"{hosts}=http://up", **options) == [
        warn(
            f"acme_upstreams: no option allows a certificate for {hosts}, so browsers cannot open it; "
            f"add it to {option}"
        ),
        passed("http://up:80"),
    ]


@pytest.mark.usefixtures("no_connections")
def test_many_hosts_without_certificate_are_one_line() -> None:
    found, _ = findings(*(f"n{number}.test=http://up" for number in range(1_000)))
    assert "for n0.test, n1.test, n2.test, n3.test, n4.test, …, so" in found.what
