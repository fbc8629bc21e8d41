"""A name that fails is rehearsed at a real CA's staging directory, which is another CA, before the CA is asked."""

from collections.abc import Callable
from pathlib import Path

from acme_storage import Storage
from acme_storage.memory import Memory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from tests.end_to_end.client import eventually, handshake, untrusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.pebble import ChallTestSrv, Pebble


def test_what_failed_is_rehearsed_until_it_is_mended(
    proxy: StartProxy,
    pebble: Pebble,
    dns: ChallTestSrv,
    root: str,
    store: Storage,
    fresh_name: Callable[[], str],
    tmp_path: Path,
) -> None:
    """Only staging sees the attempts that fail; once one succeeds there, the CA issues. Without staging it is asked."""
    name, other, before = fresh_name(), fresh_name(), pebble.seen()
    dns.add_a(name, "127.0.0.99")  # where nothing listens
    dns.add_a(other, "127.0.0.99")
    with Pebble(dns, http_port=pebble.http_port) as staging:
        trusted = tmp_path / "both.pem"
        trusted.write_text(Path(pebble.ca_bundle).read_text() + Path(staging.ca_bundle).read_text())
        running = proxy(
            acme_ca=[f"{pebble.directory};staging={staging.directory}"],
            acme_ca_bundle=str(trusted),
            acme_fail_backoff="1s",
        )

        untrusted(running.https_port, name)
        assert ((pebble.seen() - before).orders, staging.seen().orders) == (1, 0)
        eventually(lambda: _visited(running.https_port, name, staging) >= 2)
        assert f"could not validate {name}" in running.log_text()
        assert f"(rehearsed at {staging.directory})" in running.log_text()
        assert ((pebble.seen() - before).orders, staging.seen().certificates) == (1, 0)

        dns.clear_a(name)
        eventually(lambda: untrusted(running.https_port, name).serial_number in pebble.issued_serials())
        assert handshake(running.https_port, name, root).names == [name]
        assert ((pebble.seen() - before).orders, staging.seen().certificates) == (2, 1)
        assert len(store.keys("accounts/")) == 2
        untrusted(running.https_port, other)
    dns.clear_a(other)
    eventually(lambda: untrusted(running.https_port, other).serial_number in pebble.issued_serials())
    assert f"{other}: not rehearsed at {staging.directory}: " in running.log_text()
    assert (pebble.seen() - before).certificates == 2


def _visited(port: int, name: str, staging: Pebble) -> int:
    """Be a client that gets the fallback; return how many orders staging has seen."""
    untrusted(port, name)
    return staging.seen().orders


async def test_rehearsal_validates_anew_each_time() -> None:
    """Though the CA would take what it has validated already: then the next would tell nothing."""
    with Pebble(always_valid=True, authz_reuse=100) as ca:
        options = {"acme_ca": (ca.directory,), "acme_ca_bundle": str(ca.ca_bundle), "acme_tos_accepted": True}
        manager = Manager(Config.from_options(options | {"acme_domains": ("a.example.test",)}), Memory())
        subject = Subject((ServerName("a.example.test"),))
        for _ in range(2):
            await manager.cas[0].issuer.rehearse(subject)
        assert (ca.seen().validations, ca.seen().certificates) == (2, 2)
        await manager.obtain(subject)
        await manager.renew(subject)
        assert ca.seen().validations == 3
        await manager.close()
