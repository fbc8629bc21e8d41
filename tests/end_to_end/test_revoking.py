"""What signs a revocation: our account, or the certificate's own key; at a real CA, which says what it then has."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import josepy as jose
import pytest

from acme_storage import Storage
from acme_storage.memory import Memory
from mitmproxy_acme.ca.http.network import Network
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import IssuanceError, IssuerUnavailable, SettingsRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.revocation import REASONS
from mitmproxy_acme.lifecycle.manager import Manager
from tests.end_to_end.admin import Api, with_api
from tests.end_to_end.client import eventually, handshake, untrusted
from tests.end_to_end.conftest import StartProxy, change_account
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.gate import Gate
from tests.servers.pebble import ChallTestSrv, Pebble

type MakeManager = Callable[..., Manager]
type Headers = list[dict[str, Any]]


@pytest.fixture
def ca(lenient_ca: Pebble) -> Pebble:
    return lenient_ca


@pytest.fixture
async def make_manager(ca: Pebble) -> AsyncIterator[MakeManager]:
    """Make managers, each on a storage of its own unless one is given; options as keywords."""
    async with AsyncExitStack() as stack:

        def make(storage: Memory | None = None, **options: Any) -> Manager:
            defaults = {"acme_ca": (ca.directory,), "acme_ca_bundle": str(ca.ca_bundle), "acme_tos_accepted": True}
            config = Config.from_options(defaults | {"acme_domains": ("**.example.test",)} | options)
            manager = Manager(config, storage or Memory())
            stack.push_async_callback(manager.close)
            return manager

        yield make


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> Headers:
    """The protected headers (RFC 7515) of the revocations that are sent."""
    headers: Headers = []
    send = Network._send_request

    def listen(self: Network, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if "revoke" in url:
            protected = json.loads(kwargs["data"])["protected"]
            headers.append(json.loads(jose.decode_b64jose(protected)))
        return send(self, method, url, *args, **kwargs)

    monkeypatch.setattr(Network, "_send_request", listen)
    return headers


def put(manager: Manager, certificate: Certificate) -> None:
    assert manager.store.replace(manager.store.slot(certificate.id), certificate)


def status(ca: Pebble, certificate: Certificate) -> tuple[object, int]:
    said = ca.cert_status(certificate.leaf.serial_number)
    return said["Status"], int(said.get("Reason", 0))


def subject(name: str) -> Subject:
    return Subject((ServerName(name),))


async def test_account_signs_for_what_it_ordered(make_manager: MakeManager, ca: Pebble, signed: Headers) -> None:
    """Nothing but the account's URL says who asks."""
    manager = make_manager()
    certificate = await manager.obtain(subject("own.example.test"))

    await manager.revoke(certificate.id, "superseded")

    assert status(ca, certificate) == ("Revoked", REASONS["superseded"])
    assert [("kid" in header, "jwk" in header) for header in signed] == [(True, False)]


async def test_compromised_key_signs_itself(make_manager: MakeManager, ca: Pebble, signed: Headers) -> None:
    """Though our account ordered it: it proves that the key is out, and CAs take no such key again."""
    manager = make_manager()
    certificate = await manager.obtain(subject("stolen.example.test"))

    await manager.revoke(certificate.id, "keyCompromise")

    assert status(ca, certificate) == ("Revoked", REASONS["keyCompromise"])
    assert ["kid" in header for header in signed] == [False]


@pytest.mark.parametrize("key_type", ["ecdsa-p256", "ecdsa-p384", "rsa-2048"])
async def test_key_signs_where_there_is_no_account(
    make_manager: MakeManager, ca: Pebble, signed: Headers, key_type: str
) -> None:
    """As with an imported certificate, or after the account was given up: none is made for it."""
    certificate = await make_manager(acme_key_type=(key_type,)).obtain(subject(f"{key_type}.example.test"))
    manager = make_manager()
    put(manager, certificate)
    before = ca.seen()

    await manager.revoke(certificate.id, "cessationOfOperation")

    assert status(ca, certificate) == ("Revoked", REASONS["cessationOfOperation"])
    assert (ca.seen() - before).by_path["/sign-me-up"] == 0
    (header,) = signed
    assert "kid" not in header
    assert not {"d", "p", "q"} & header["jwk"].keys()
    assert await manager.threads.storage(lambda: manager.store.slot(certificate.id).certificate) is None


async def test_key_signs_where_another_account_ordered(make_manager: MakeManager, ca: Pebble, signed: Headers) -> None:
    """The CA refuses our account, and takes the certificate's own key."""
    certificate = await make_manager().obtain(subject("imported.example.test"))
    manager = make_manager()
    await manager.obtain(subject("other.example.test"))
    put(manager, certificate)

    await manager.revoke(certificate.id, "unspecified")

    assert status(ca, certificate) == ("Revoked", 0)
    assert ["kid" in header for header in signed] == [True, False]


async def test_key_signs_where_the_account_was_given_up(make_manager: MakeManager, ca: Pebble, signed: Headers) -> None:
    """A deactivated account signs no more, and no new one is made for a revocation."""
    manager = make_manager()
    certificate = await manager.obtain(subject("given-up.example.test"))
    await manager.cas[0].issuer.account.deactivate()

    await manager.revoke(certificate.id, "superseded")

    assert status(ca, certificate) == ("Revoked", REASONS["superseded"])
    assert ["kid" in header for header in signed] == [False]


async def test_certificate_of_a_ca_that_is_no_option_any_more(
    make_manager: MakeManager, ca: Pebble, signed: Headers
) -> None:
    """Its own CA is asked, not one of the options."""
    certificate = await make_manager().obtain(subject("moved.example.test"))
    manager = make_manager(acme_ca=(f"https://localhost:{free_port()}/dir",))
    put(manager, certificate)

    await manager.revoke(certificate.id, "superseded")

    assert status(ca, certificate) == ("Revoked", REASONS["superseded"])
    assert ["kid" in header for header in signed] == [False]


async def test_what_is_revoked_already_is_done(make_manager: MakeManager, ca: Pebble) -> None:
    """By its key as well as by the account: the CA's alreadyRevoked is as good as a revocation."""
    manager = make_manager()
    certificate = await manager.obtain(subject("twice.example.test"))
    for reason in ("superseded", "superseded"):
        await manager.revoke(certificate.id, reason)
        put(manager, certificate)
    stranger = make_manager()
    put(stranger, certificate)

    await stranger.revoke(certificate.id, "superseded")

    assert status(ca, certificate) == ("Revoked", REASONS["superseded"])
    assert stranger.store.slot(certificate.id).certificate is None


@pytest.mark.parametrize(
    ("directory", "error", "said"),
    [("", SettingsRefused, "which CA issued"), ("https://localhost:1/dir", IssuerUnavailable, "cannot be reached")],
)
async def test_ca_that_cannot_be_asked(
    make_manager: MakeManager, directory: str, error: type[Exception], said: str
) -> None:
    """One sentence says so, and the certificate stays."""
    manager = make_manager()
    certificate = make_certificate(["x.example.test"], ca=directory)
    put(manager, certificate)

    with pytest.raises(error, match=said):
        await manager.revoke(certificate.id, "superseded")

    assert manager.store.slot(certificate.id).certificate is not None


async def test_two_nodes_finish_a_revocation_once(
    make_manager: MakeManager, ca: Pebble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A CA that revokes nothing for a while, though it issues: the replacement is served meanwhile, and stays."""
    with Gate(ca, tmp_path / "gate") as gate:
        storage, options = Memory(), {"acme_ca": (gate.directory,), "acme_ca_bundle": str(gate.ca_bundle)}
        nodes = [make_manager(storage, acme_fail_backoff="0.1s", **options) for _ in range(2)]
        old = await nodes[0].obtain(subject("two.example.test"))
        gate.answer("/revoke-cert", 503)
        with pytest.raises(IssuanceError, match="but the old one is not revoked yet, and it is retried automatically"):
            await nodes[0].revoke(old.id, "keyCompromise")
        new = nodes[1].store.slot(old.id).certificate
        gate.open()
        asked = gate.paths().count("/revoke-cert")

        running = [asyncio.get_running_loop().create_task(node.make_revocation_retrier().run()) for node in nodes]
        await asyncio.to_thread(eventually, lambda: not storage.keys("compromised/"))
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    assert status(ca, old) == ("Revoked", REASONS["keyCompromise"])
    assert gate.paths().count("/revoke-cert") == asked + 1
    kept = nodes[1].store.slot(old.id).certificate
    assert kept is not None
    assert new is not None
    assert kept.fingerprint == new.fingerprint
    assert not kept.has_same_key_as(old)
    assert status(ca, kept)[0] == "Valid"
    assert caplog.text.count("it is not revoked yet; retry in ") == 1


def test_ca_that_is_down_revokes_when_it_is_back(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: Callable[[], str]
) -> None:
    """Though the proxy is restarted meanwhile, and no one says it again: replaced, revoked, and a line in the log."""
    name = fresh_name()
    with Chaos(pebble.port) as line:
        running, api = with_api(
            proxy, acme_ca=[f"https://localhost:{line.port}/dir"], acme_fail_backoff="1s", start=False
        )
        running.start()
        old = handshake(running.https_port, name, root).leaf
        line.refuse()
        answer = api("DELETE", f"/acme/certificates/{name}?reason=keyCompromise")
        assert answer.status == 500
        assert f"{name} is neither replaced nor revoked yet, and it is retried automatically: " in answer.text
        assert f"{name}: the certificate whose key is compromised: it is not revoked yet" in running.log_text()
        assert handshake(running.https_port, name, root).leaf == old
        eventually(lambda: _unrevoked(api) == [name])

        running.stop()
        running.start()
        line.heal()

        eventually(lambda: pebble.cert_status(old.serial_number)["Status"] == "Revoked", timeout=30)
        eventually(lambda: f"{name}: certificate revoked" in running.log_text())
        eventually(lambda: _unrevoked(api) == [])
        new = handshake(running.https_port, name, root).leaf
        assert new.public_key() != old.public_key()
        assert pebble.cert_status(new.serial_number)["Status"] == "Valid"


def _unrevoked(api: Api) -> list[str]:
    return [left["host"] for left in api("GET", "/acme/status").document["unrevoked"]]


def test_stolen_key_is_served_nowhere(
    proxy: StartProxy, pebble: Pebble, dns: ChallTestSrv, root: str, store: Storage, fresh_name: Callable[[], str]
) -> None:
    """Two proxies on one storage serve the new one within seconds; where none can be had the old one ends as well."""
    name, unfortunate = fresh_name(), fresh_name()
    running, api = with_api(proxy)
    old = {host: handshake(running.https_port, host, root).leaf for host in (name, unfortunate)}
    change_account(running, store)
    nodes = (running, proxy(http_port=free_port()))
    assert [handshake(nodes[1].https_port, host, root).leaf for host in old] == [*old.values()]
    dns.add_a(unfortunate, "127.0.0.99")

    answers = [api("DELETE", f"/acme/certificates/{host}?reason=keyCompromise") for host in old]

    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].message == (
        f"certificate for host {name} is revoked (keyCompromise) and replaced by a certificate with a new key"
    )
    assert "is revoked (keyCompromise) and deleted; no new certificate was obtained: " in answers[1].message
    assert f"could not validate {unfortunate}" in answers[1].message
    assert {pebble.cert_status(leaf.serial_number)["Status"] for leaf in old.values()} == {"Revoked"}
    new = handshake(running.https_port, name, root).leaf
    assert new.public_key() != old[name].public_key()
    eventually(lambda: [handshake(node.https_port, name, root).leaf for node in nodes] == [new, new])
    eventually(lambda: old[unfortunate] not in [untrusted(node.https_port, unfortunate) for node in nodes])
    assert pebble.cert_status(new.serial_number)["Status"] == "Valid"
    dns.clear_a(unfortunate)
