"""The account at the CA (RFC 8555 section 7.3): its key and its contact change while proxies use it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import josepy as jose
import pytest

from acme_storage import Storage
from mitmproxy_acme.ca.account_session import AccountSession
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.key_generation import new_account_key
from mitmproxy_acme.ca.known_cas import CaInfo
from mitmproxy_acme.cli.main import main
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.end_to_end.client import handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.gate import Gate
from tests.servers.pebble import Pebble

type Work[T] = Callable[[AccountSession], Awaitable[T]]


def config_for(ca: Pebble | Gate, **options: object) -> Config:
    chosen = {"acme_ca": (ca.directory,), "acme_ca_bundle": str(ca.ca_bundle), "acme_tos_accepted": True}
    return Config.from_options(
        {"acme_domains": ("**.example.test",), "acme_email": "me@example.com"} | chosen | options
    )


def beside[T](store: Storage, ca: Pebble | Gate, work: Work[T], **options: object) -> T:
    """Return what ``work`` does with the account in a process beside the proxies, as the command line is one."""

    async def run() -> T:
        threads = ThreadPools()
        try:
            config = config_for(ca, **options)
            return await work(
                AccountSession(config, config.issuers[0], Store(store, UNSEALED), threads, CaInfo(ca.directory))
            )
        finally:
            threads.close()

    return asyncio.run(run())


@pytest.fixture
def command(pebble: Pebble, tmp_path: Path) -> Callable[..., int]:
    """Run ``mitmproxy-acme`` with the options of the test's proxies."""

    def run(name: str, *words: str, **options: str) -> int:
        settings = {
            "acme_ca": pebble.directory,
            "acme_ca_bundle": str(pebble.ca_bundle),
            "acme_email": "me@example.com",
            "acme_tos_accepted": "true",
            "acme_storage": f"file:{tmp_path / 'store'}",
            "acme_domains": "**.example.test",
        } | options
        given = [word for option, value in settings.items() for word in ("--set", f"{option}={value}")]
        return main([name, "--confdir", str(tmp_path / "confdir"), *given, *words])

    return run


def account(store: Storage) -> Account:
    (key,) = store.keys("accounts/")
    return Account.from_record(store.get(key) or b"")


def contacts(store: Storage, ca: Pebble) -> list[str]:
    """What the CA itself has as the account's contacts."""

    async def ask(enrolment: AccountSession) -> list[str]:
        async def look(client: Client) -> list[str]:
            uri = account(store).uri
            return list(client._post_as_get(uri).json().get("contact") or [])

        return await enrolment.call_with_account(look)

    return beside(store, ca, ask, acme_email=account(store).contact or "")


def test_key_changes_without_a_gap(
    proxy: StartProxy, root: str, store: Storage, fresh_name: Callable[[], str], command: Callable[..., int]
) -> None:
    """Orders go on under the new key in a proxy that was not told, many at once, and after its restart."""
    running = proxy()
    handshake(running.https_port, fresh_name(), root)
    before = account(store)

    assert command("rotate-account-key") == 0

    after = account(store)
    assert (after.uri, after.next_key) == (before.uri, "")
    assert after.thumbprint not in ("", before.thumbprint)
    assert jose.encode_b64jose(jose.JWK.json_loads(after.key).thumbprint()) == after.thumbprint
    handshakes(running.https_port, [fresh_name() for _ in range(10)], root)
    assert "no certificate" not in running.log_text()
    running.restart()
    handshake(running.https_port, fresh_name(), root)
    assert account(store) == after


@pytest.mark.parametrize("told", [True, False], ids=["the CA was told", "the CA was not told"])
def test_killed_change_leaves_the_account_usable(
    proxy: StartProxy, pebble: Pebble, root: str, store: Storage, fresh_name: Callable[[], str], *, told: bool
) -> None:
    """Both keys are stored before the CA is told: whichever it has, the next order finds it, and the next change."""
    running = proxy()
    handshake(running.https_port, fresh_name(), root)
    old, new = account(store), new_account_key()
    half_done = Account(old.directory, old.thumbprint, old.uri, old.key, next_key=new.json_dumps(), contact=old.contact)
    Store(store, UNSEALED).save_account(half_done)
    if told:
        beside(store, pebble, lambda enrolment: _tell(enrolment, new))
    running.restart()

    handshake(running.https_port, fresh_name(), root)

    kept = account(store)
    assert (kept.key == half_done.next_key) is told
    beside(store, pebble, AccountSession.change_key)
    handshake(running.https_port, fresh_name(), root)


async def _tell(enrolment: AccountSession, new: jose.JWK) -> None:
    async def tell(client: Client) -> None:
        client.change_key(new)

    await enrolment.call_with_account(tell)


def test_contact_follows_the_option(
    proxy: StartProxy, pebble: Pebble, root: str, store: Storage, fresh_name: Callable[[], str]
) -> None:
    """The CA hears of another address, and of none, with the next order; it stays the same account."""
    uris = set()
    for email, told in (
        ("me@example.com", ["mailto:me@example.com"]),
        ("you@example.com", ["mailto:you@example.com"]),
        ("", []),
    ):
        running = proxy(acme_email=email)
        handshake(running.https_port, fresh_name(), root)
        assert contacts(store, pebble) == told
        uris.add(account(store).uri)
        running.stop()
    assert len(uris) == 1


def test_deactivated_account_is_followed_by_another(
    proxy: StartProxy, root: str, store: Storage, fresh_name: Callable[[], str], command: Callable[..., int]
) -> None:
    """What it ordered is served on; a proxy that starts then has an account of its own making."""
    running, name = proxy(), fresh_name()
    served = handshake(running.https_port, name, root)
    old = account(store)

    assert command("deactivate-account") == 2  # no person can be asked here
    assert account(store) == old
    assert command("deactivate-account", "--yes") == 0

    assert store.keys("accounts/") == []
    assert handshake(running.https_port, name, root).leaf == served.leaf
    assert not is_trusted(running.https_port, fresh_name(), root)
    running.restart()
    handshake(running.https_port, fresh_name(), root)
    assert account(store).uri != old.uri


def test_own_key_is_not_changed(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the operator's: what would be right is said."""
    monkeypatch.setenv("OWN_KEY", new_account_key().json_dumps())
    assert command("rotate-account-key", acme_account_key="env:OWN_KEY") == 1
    assert "acme_account_key is your own key" in capsys.readouterr().err


def test_ca_that_changes_no_keys_is_said_to(
    pebble: Pebble, command: Callable[..., int], store: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its directory has no such resource: one sentence, and no key is stored that it will never have."""
    with Gate(pebble, tmp_path / "gate") as gate:
        beside(store, gate, AccountSession.ready)
        front = {"Host": gate.directory.split("/")[2], "User-Agent": "a test"}
        directory = json.loads(gate.forward("GET", "/dir", front, b"")[2])
        del directory["keyChange"]
        gate.answer("/dir", 200, json.dumps(directory).encode(), Content_Type="application/json")
        assert command("rotate-account-key", acme_ca=gate.directory, acme_ca_bundle=str(gate.ca_bundle)) == 1
    assert f"{gate.directory} does not support changing account keys" in capsys.readouterr().err
    assert account(store).next_key == ""


@pytest.mark.parametrize("words", [("deactivate-account", "--yes"), ("rotate-account-key",)])
def test_no_account_is_made_to_be_given_up(
    command: Callable[..., int], pebble: Pebble, store: Storage, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Where there is none that is said, and the CA, which may count them, is asked for none."""
    before = pebble.seen()
    assert command(*words) == 1
    assert f"there is no account at {pebble.directory}; the first order creates one" in capsys.readouterr().err
    assert (store.keys("accounts/"), (pebble.seen() - before).by_path["/sign-me-up"]) == ([], 0)
