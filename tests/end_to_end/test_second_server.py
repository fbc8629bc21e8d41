"""An ACME server that shares no line with Pebble: what our client takes for granted of one, another may not do.

acme2certifier 0.46 has two ways of its own, which are pinned here: its SQLite store forgets why a validation failed,
and to a signature of a key that an account has no more it answers with a problem whose type is a sentence.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acme_storage import Storage
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.cli.main import main
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import RenewalInfo
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.end_to_end.admin import with_api
from tests.end_to_end.client import handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy, default_options
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.acme2certifier import Acme2certifier
from tests.servers.base import free_port, started
from tests.servers.pebble import ChallTestSrv, Pebble

type FreshName = Callable[[], str]


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Acme2certifier]:
    """The server, with a profile that it offers."""
    with started(Acme2certifier(dns, profiles=("classic",))) as server:
        yield server


def account(store: Storage) -> Account:
    (key,) = store.keys("accounts/")
    return Account.from_record(store.get(key) or b"")


def test_first_handshake(proxy: StartProxy, ca: Acme2certifier, fresh_name: FreshName) -> None:
    """Names never seen before are validated by http-01, and trusted: the first alone, then three at once."""
    running, names = proxy(ca=ca), [fresh_name() for _ in range(4)]
    served = [handshake(running.https_port, names[0], ca.root()), *handshakes(running.https_port, names[1:], ca.root())]
    assert [visit.names for visit in served] == [[name] for name in names]


def test_tls_alpn(proxy: StartProxy, ca: Acme2certifier, fresh_name: FreshName) -> None:
    """It validates by tls-alpn-01 too, with nothing else open to it."""
    running, name = (
        proxy(ca=ca, https_port=ca.tls_port, acme_challenges=["tls-alpn-01"], http_port=free_port()),
        fresh_name(),
    )
    assert handshake(running.https_port, name, ca.root()).names == [name]


def test_certificate_of_several_names(proxy: StartProxy, ca: Acme2certifier, fresh_name: FreshName) -> None:
    """Each is validated; the key is RSA, and the profile one that it offers."""
    names = [fresh_name(), fresh_name()]
    running = proxy(ca=ca, acme_certificates=[",".join(names)], acme_profile="classic", acme_key_type=["rsa-2048"])
    assert sorted(handshake(running.https_port, names[0], ca.root()).names) == sorted(names)


def test_renewal_and_revocation(
    proxy: StartProxy, ca: Acme2certifier, store: Storage, tmp_path: Path, fresh_name: FreshName
) -> None:
    """It says when to renew (RFC 9773); a renewal has another serial number; the account revokes that one."""
    running, api = with_api(proxy, ca=ca)
    name = fresh_name()
    before = handshake(running.https_port, name, ca.root()).leaf
    assert api("POST", f"/acme/certificates/{name}/renew", json_body={}).status == 200
    after = handshake(running.https_port, name, ca.root()).leaf
    assert after.serial_number != before.serial_number

    info = _renewal_info(ca, store, tmp_path, name)
    assert info is not None
    assert after.not_valid_before_utc.timestamp() < info.start < info.end <= after.not_valid_after_utc.timestamp() + 1

    assert api("DELETE", f"/acme/certificates/{name}?reason=superseded").status == 204
    assert ca.revoked() == {after.serial_number}


def _renewal_info(ca: Acme2certifier, store: Storage, folder: Path, name: str) -> RenewalInfo | None:
    """Return what it suggests for the stored certificate, asked beside the proxy and with its account."""

    async def ask() -> RenewalInfo | None:
        threads, kept = ThreadPools(), Store(store, UNSEALED)
        try:
            (issuer,) = issuers_of(Config.from_options(default_options(ca, folder)), kept, threads)
            certificate = kept.slot(ServerName(name)).certificate
            assert certificate is not None
            return await issuer.renewal_info(certificate, time.time())
        finally:
            threads.close()

    return asyncio.run(ask())


def test_name_that_cannot_be_validated(
    proxy: StartProxy, ca: Acme2certifier, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """The name is refused, in one sentence, and the next one is served."""
    running, name = proxy(ca=ca), fresh_name()
    dns.add_a(name, "127.0.0.2")  # where nothing listens
    assert not is_trusted(running.https_port, name, ca.root())
    assert f"{name}: no certificate: {ca.directory} could not validate {name} and did not say why" in running.log_text()
    handshake(running.https_port, fresh_name(), ca.root())


def test_account_changes(
    proxy: StartProxy, ca: Acme2certifier, store: Storage, tmp_path: Path, fresh_name: FreshName
) -> None:
    """Its key is changed beside a proxy that is not told, whose orders go on; given up, it is followed by another."""
    running = proxy(ca=ca)
    handshake(running.https_port, fresh_name(), ca.root())
    before = account(store)

    assert _command(ca, tmp_path, "rotate-account-key") == 0
    handshake(running.https_port, fresh_name(), ca.root())
    after = account(store)
    assert (after.uri, after.next_key) == (before.uri, "")
    assert after.thumbprint != before.thumbprint

    assert _command(ca, tmp_path, "deactivate-account", "--yes") == 0
    running.restart()
    handshake(running.https_port, fresh_name(), ca.root())
    assert account(store).uri != before.uri


def _command(ca: Acme2certifier, folder: Path, name: str, *words: str) -> int:
    """Run ``mitmproxy-acme`` with the options of the test's proxies."""
    settings = default_options(ca, folder / "store")
    spelt = {option: value if isinstance(value, str) else str(value).lower() for option, value in settings.items()}
    spelt |= {"acme_ca": ca.directory, "acme_domains": "**.example.test"}
    given = [word for option, value in spelt.items() for word in ("--set", f"{option}={value}")]
    return main([name, "--confdir", str(folder / "confdir"), *given, *words])


def test_bound_account_at_a_slow_ca(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """The account is bound (RFC 8555 section 7.3.4), and each order is "processing" for a while, whatever the CA says.

    What it says is that ten minutes should pass before the next look.
    """
    key = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
    with started(Acme2certifier(dns, eab={"kid-1": key}, patience=0)) as ca:
        running = proxy(ca=ca, acme_eab_kid="kid-1", acme_eab_hmac_key=key)
        name = fresh_name()
        assert handshake(running.https_port, name, ca.root()).names == [name]


def test_failover_from_a_dead_pebble(proxy: StartProxy, ca: Acme2certifier, fresh_name: FreshName) -> None:
    """New names, and those that Pebble issued before, come from it when Pebble is gone."""
    with started(Pebble(always_valid=True)) as first:
        running, api = with_api(proxy, ca=ca, acme_ca=[f"{first.directory};ca_bundle={first.ca_bundle}", ca.directory])
        known = fresh_name()
        handshake(running.https_port, known, first.root())
        first.kill()
        handshake(running.https_port, fresh_name(), ca.root())
        assert api("POST", f"/acme/certificates/{known}/renew", json_body={}).status == 200
        handshake(running.https_port, known, ca.root())
