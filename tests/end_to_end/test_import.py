"""What others left is served and renewed by a real mitmdump: certificates of Pebble, laid out as other tools do."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from acme_storage import open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.store import Store
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy
from tests.mitmproxy_acme.cli.importers import layouts
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers import forked
from tests.servers.binaries import need
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.redis import Redis

_PROGRAM = Path(sys.executable).with_name("mitmproxy-acme")

type FreshName = Callable[[], str]
type Issue = Callable[..., Certificate]


def run_import(running: Mitmdump, source: str) -> list[str]:
    """Run the command with the options of a proxy, which may run; return its lines. All must be usable."""
    ours = [word for word in running.arguments() if word.startswith("acme_")]
    words = ["--confdir", str(running.folder / "confdir"), *(word for option in ours for word in ("--set", option))]
    done = forked.run([_PROGRAM, "import", source, *words])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def issue(proxy: StartProxy, tmp_path: Path) -> Issue:
    """Have a CA issue for names, through a proxy that is gone then, into a storage and an account of its own."""

    def issued(ca: Pebble, *names: str) -> Certificate:
        folder = tmp_path / f"elsewhere-{names[0]}"
        store = Store(open_storage(f"file:{folder}", default_folder=tmp_path), UNSEALED)
        other = proxy(ca=ca, storage=folder, acme_domains=[], acme_certificates=[",".join(names)])
        eventually(lambda: store.slot(ServerName(names[0])).certificate)
        other.close()
        certificate = store.slot(ServerName(names[0])).certificate
        assert certificate is not None
        return certificate

    return issued


@pytest.fixture
def kong(tmp_path: Path) -> Iterator[Redis]:
    need("redis-server", "redis-cli")
    with Redis() as server:
        yield server


def lay_out(kind: str, folder: Path, certificate: Certificate, server: Redis | None) -> str:
    """Put it where a tool would have it; return the source to import from."""
    if kind == "kong":
        assert server is not None
        client = redis.Redis(port=server.port)
        client.set(f"kong_acme:cert_key:{certificate.id}", layouts.kong(certificate))
        client.set(f"kong_acme:account:{certificate.ca}:bWVAZXhhbXBsZS5jb20=", "{}")
        client.close()
        return f"kong+redis://127.0.0.1:{server.port}"
    if kind == "certbot":
        layouts.certbot(folder, certificate.id, certificate, certificate.ca)
    elif kind == "acme.sh":
        layouts.acme_sh(folder, certificate.id, certificate, certificate.ca)
    else:
        layouts.caddy(folder, certificate, certificate.ca)
    return f"{kind}:{folder}"


@pytest.mark.parametrize("kind", ["certbot", "acme.sh", "caddy", "kong"])
def test_imported_certificates_are_served_without_an_order(
    proxy: StartProxy,
    pebble: Pebble,
    root: str,
    issue: Issue,
    fresh_name: FreshName,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    """On demand under each of its names, or managed under all of them: the client gets the imported certificate."""
    server = request.getfixturevalue("kong") if kind == "kong" else None
    names = [fresh_name(), fresh_name()]
    managed = [fresh_name(), fresh_name()]
    certificates = [issue(pebble, *names), issue(pebble, *managed)]
    source, _ = (lay_out(kind, tmp_path / kind, certificate, server) for certificate in certificates)
    running = proxy(start=False, acme_certificates=[",".join(reversed(managed))])

    lines = run_import(running, source)

    assert lines[-1] == "imported 2, skipped 0, unusable 0"
    before = pebble.seen()
    running.start()
    served = {name: handshake(running.https_port, name, root).leaf for name in (*names, *managed)}
    assert list(served.values()) == [certificate.leaf for certificate in certificates for _ in range(2)]
    assert (pebble.seen() - before).orders == 0


def test_imported_certificate_is_renewed_when_due(
    proxy: StartProxy, dns: ChallTestSrv, issue: Issue, fresh_name: FreshName, tmp_path: Path
) -> None:
    """It is renewed at its CA by this proxy's account, which the CA does not let replace another account's."""
    with Pebble(dns, profiles={"short": 20}) as ca:
        name = fresh_name()
        certificate = issue(ca, name)
        layouts.certbot(tmp_path / "etc", name, certificate, ca.directory)
        running = proxy(ca=ca, start=False)
        run_import(running, f"certbot:{tmp_path / 'etc'}")
        before = ca.seen()

        running.start()

        assert handshake(running.https_port, name, ca.root()).leaf == certificate.leaf
        eventually(lambda: handshake(running.https_port, name, ca.root()).leaf != certificate.leaf, timeout=20)
        assert time.time() < certificate.not_after
        seen = ca.seen() - before
        assert (seen.orders, seen.certificates, seen.by_path["/order-plz"]) == (1, 1, 2)
    assert "no certificate" not in running.log_text()


def test_running_proxy_takes_it_up(
    proxy: StartProxy, pebble: Pebble, root: str, issue: Issue, fresh_name: FreshName, tmp_path: Path
) -> None:
    """An import into the storage of a running proxy is served within seconds, without an order; twice is the same."""
    name = fresh_name()
    old = proxy()
    first = handshake(old.https_port, name, root).leaf
    old.stop()
    time.sleep(1.1)  # X.509 counts whole seconds
    longer = issue(pebble, name)
    assert longer.not_after > first.not_valid_after_utc.timestamp()
    layouts.certbot(tmp_path / "etc", name, longer, pebble.directory)
    old.start()
    assert handshake(old.https_port, name, root).leaf == first
    before = pebble.seen()

    assert run_import(old, f"certbot:{tmp_path / 'etc'}")[-1] == "imported 1, skipped 0, unusable 0"

    eventually(lambda: handshake(old.https_port, name, root).leaf == longer.leaf)
    assert run_import(old, f"certbot:{tmp_path / 'etc'}")[-1] == "imported 0, skipped 1, unusable 0"
    assert (pebble.seen() - before).orders == 0


def test_certificate_of_another_ca_is_replaced_when_a_client_asks(
    proxy: StartProxy, pebble: Pebble, root: str, dns: ChallTestSrv, issue: Issue, fresh_name: FreshName, tmp_path: Path
) -> None:
    """The options' CA takes over at the first handshake; what no client asks for is left until it is due."""
    asked, unasked = fresh_name(), fresh_name()
    with Pebble(dns) as other:
        for name in (asked, unasked):
            layouts.certbot(tmp_path / "etc", name, issue(other, name), other.directory)
    running = proxy(start=False)
    lines = run_import(running, f"certbot:{tmp_path / 'etc'}")
    assert lines[-2].startswith("2 of them are from a CA that is not in acme_ca: ")
    before = pebble.seen()

    running.start()

    assert handshake(running.https_port, asked, root).names == [asked]
    time.sleep(1)
    assert (pebble.seen() - before).orders == 1
