"""AccountSession: how callers share one connection and one failure; end_to_end tests what the CA is told."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import josepy as jose
import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.ca.account_session import AccountSession
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.external_account_binding import ExternalAccountBinding
from mitmproxy_acme.ca.key_generation import new_account_key, thumbprint
from mitmproxy_acme.ca.known_cas import CaInfo
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.errors import (
    AccountUnknown,
    IssuanceError,
    IssuerUnavailable,
    Problem,
    SettingsRefused,
)
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.hostile import ERROR, HostileCa, Reply


class Failing:
    """Accounts that cannot be read, each time for another reason; the first read waits for ``told``."""

    def __init__(self) -> None:
        self.asked, self.told = threading.Event(), threading.Event()
        self.times = 0

    def account(self, directory: str) -> Account | None:
        self.times += 1
        self.asked.set()
        self.told.wait(10)
        raise StorageUnavailable(f"{directory}: failure {self.times}")

    def claim_account(self, account: Account) -> Account:
        raise AssertionError

    def save_account(self, account: Account) -> None:
        raise AssertionError

    def delete_account(self, directory: str) -> None:
        raise AssertionError


async def test_a_failure_that_nobody_waited_for_is_forgotten(threads: ThreadPools) -> None:
    """If all callers have left before it failed, the next one connects again, and does not get the old failure."""
    accounts, config = Failing(), Config.from_options({})
    enrolment = AccountSession(config, config.issuers[0], accounts, threads, CaInfo("https://ca.test/directory"))
    waiting = asyncio.create_task(enrolment.ready())
    await asyncio.to_thread(accounts.asked.wait, 10)
    connecting = enrolment._client
    assert connecting is not None
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    accounts.told.set()
    await asyncio.wait([connecting])
    with pytest.raises(StorageUnavailable, match="failure 2"):
        await enrolment.ready()


async def test_visitor_that_leaves_ends_no_connection_of_others(threads: ThreadPools) -> None:
    """Both waited for one connection to the CA; the other one gets what becomes of it."""
    accounts, config = Failing(), Config.from_options({})
    session = AccountSession(config, config.issuers[0], accounts, threads, CaInfo("https://ca.test/directory"))
    leaves, stays = (asyncio.create_task(session.ready()) for _ in range(2))
    await asyncio.to_thread(accounts.asked.wait, 10)
    leaves.cancel()
    await asyncio.wait([leaves])
    accounts.told.set()
    with pytest.raises(StorageUnavailable, match="failure 1"):
        await stays


class Ca(HostileCa):
    """Notes what the account is told: the payloads of its requests, and the keys that signed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.payloads: list[tuple[str, Any]] = []

    def _account(self, id: str, payload: Any) -> Reply:
        self.payloads.append((id, payload))
        return super()._account(id, payload)


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[Ca]:
    with Ca(tmp_path / "hostile") as server:
        yield server


@pytest.fixture
def store() -> Store:
    return Store(Memory(), UNSEALED)


@pytest.fixture
def make_session(ca: Ca, store: Store, threads: ThreadPools) -> Callable[..., AccountSession]:
    """Make a session of the CA's account; options as keywords."""

    def make(*, binding_url: str = "", tos_accepted: bool = True, **options: Any) -> AccountSession:
        chosen = {"acme_ca": [ca.directory], "acme_ca_bundle": str(ca.ca_bundle), "acme_tos_accepted": True} | options
        config = replace(Config.from_options(chosen), tos_accepted=tos_accepted)
        return AccountSession(config, config.issuers[0], store, threads, CaInfo(ca.directory, binding_url=binding_url))

    return make


def refusing(ca: Ca, type: str, times: int) -> Callable[[Client], Awaitable[str]]:
    """Return work that the CA refuses so many times; it returns the thumbprint of the key that signed at last."""
    tries = []

    async def work(client: Client) -> str:
        tries.append(client)
        if len(tries) <= times:
            problem = Problem(type, "as told", 403)
            kind = {"accountDoesNotExist": AccountUnknown, "serverInternal": IssuerUnavailable}.get(
                type, SettingsRefused
            )
            raise kind(type, problem=problem)
        return thumbprint(client.key)

    return work


def stored_account(store: Store, ca: Ca) -> Account:
    account = store.account(ca.directory)
    assert account is not None
    return account


async def test_account_is_created_once_and_stored(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """Its key before it is used, so that no account is lost; the next process finds it."""
    await make_session(acme_email="a@b.test").ready()
    account = stored_account(store, ca)
    assert (account.uri, account.contact, account.next_key) == (f"{ca.base}/account/1", "a@b.test", "")
    client = await make_session(acme_email="a@b.test").ready()
    assert ca.asked["account"] == 1
    assert client.account_uri == account.uri
    assert thumbprint(client.key) == account.thumbprint


async def test_contact_of_the_options_is_told_once(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """When it has changed, and not at each start."""
    await make_session().ready()
    for _ in range(2):
        await make_session(acme_email="new@b.test").ready()
    assert ca.payloads[1:] == [("1", {"contact": ["mailto:new@b.test"]})]
    assert stored_account(store, ca).contact == "new@b.test"


@pytest.mark.parametrize("type", ["invalidContact", "malformed"])
async def test_contact_that_is_refused_stops_no_order(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession], caplog: pytest.LogCaptureFixture, type: str
) -> None:
    """It is logged, and told again at the next start."""
    await make_session().ready()

    def refuse(reply: Reply) -> None:
        reply.status, reply.body = 400, {"type": f"{ERROR}{type}", "detail": "no such domain"}

    ca.change("account", refuse)
    assert (await make_session(acme_email="new@b.test").ready()).account_uri
    assert "the contact was not changed: " in caplog.text
    assert stored_account(store, ca).contact == ""


async def test_key_is_changed_and_stored(ca: Ca, store: Store, make_session: Callable[..., AccountSession]) -> None:
    """The next order, of this process or of another, signs with the new one."""
    session = make_session()
    with pytest.raises(SettingsRefused, match=r"there is no account at .*; the first order creates one"):
        await session.change_key()
    await session.ready()
    old = stored_account(store, ca)
    await session.change_key()
    new = stored_account(store, ca)
    assert (new.uri, new.next_key) == (old.uri, "")
    assert new.thumbprint != old.thumbprint
    assert ca.asked["keychange"] == 1
    for each in (session, make_session()):
        assert thumbprint((await each.ready()).key) == new.thumbprint
    assert ca.asked["account"] == 1


async def test_key_that_may_have_been_changed_is_kept(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """The CA's answer is lost: both keys are stored, and the one that it accepts becomes the account's."""
    session = make_session()
    await session.ready()
    old = stored_account(store, ca)

    def fail(reply: Reply) -> None:
        reply.status = 500
        reply.body = {"type": f"{ERROR}serverInternal"}

    ca.change("keychange", fail)
    with pytest.raises(IssuerUnavailable):
        await session.change_key()
    both = stored_account(store, ca)
    assert both.key == old.key
    assert both.next_key
    restarted = make_session()
    signed = await restarted.call_with_account(refusing(ca, "malformed", 1))
    settled = stored_account(store, ca)
    assert settled.key == both.next_key
    assert settled.next_key == ""
    assert signed == settled.thumbprint != old.thumbprint


async def test_first_key_stays_if_the_ca_still_accepts_it(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """Nothing is refused, so nothing is settled."""
    session = make_session()
    await session.ready()
    account = replace(stored_account(store, ca), next_key=new_account_key().json_dumps())
    store.save_account(account)
    assert await make_session().call_with_account(refusing(ca, "", 0)) == account.thumbprint
    assert stored_account(store, ca) == account


@pytest.mark.parametrize("type", ["unauthorized", "malformed", "someWordOfTheirs"])
async def test_key_that_another_process_changed_is_taken_up(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession], type: str
) -> None:
    """The CA refuses the old one in one way or another: the work is done once more, with the stored key."""
    session = make_session()
    await session.ready()
    await make_session().change_key()
    assert await session.call_with_account(refusing(ca, type, 1)) == stored_account(store, ca).thumbprint
    assert ca.asked["account"] == 1


@pytest.mark.parametrize("type", ["unauthorized", "badCSR"])
async def test_refusal_with_the_current_key_is_one(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession], type: str
) -> None:
    """Nothing has changed: it is not tried again."""
    session = make_session()
    before = await session.ready()
    with pytest.raises(SettingsRefused):
        await session.call_with_account(refusing(ca, type, 1))
    assert await session.ready() is before


async def test_directory_is_read_again_after_a_failure_of_the_ca(
    ca: Ca, make_session: Callable[..., AccountSession]
) -> None:
    """It may have moved its endpoints."""
    session = make_session()
    before = await session.ready()
    with pytest.raises(IssuerUnavailable):
        await session.call_with_account(refusing(ca, "serverInternal", 1))
    assert await session.ready() is not before
    assert ca.asked["directory"] == 2


async def test_account_that_the_ca_has_lost_is_registered_with_its_key(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a reset of a private CA."""
    session = make_session()
    await session.ready()
    before = stored_account(store, ca)
    assert await session.call_with_account(refusing(ca, "accountDoesNotExist", 1)) == before.thumbprint
    assert ca.asked["account"] == 2
    assert caplog.text.count("does not know our account any more; registering its key again") == 1


async def test_new_terms_are_accepted_only_by_who_accepted_the_first(
    ca: Ca, make_session: Callable[..., AccountSession]
) -> None:
    """No one agrees for an operator who has taken acme_tos_accepted out of the options."""
    session = make_session()
    await session.ready()
    await session.call_with_account(refusing(ca, "userActionRequired", 1))
    assert ca.payloads[1:] == [("1", {"termsOfServiceAgreed": True})]
    unwilling = make_session(tos_accepted=False)
    with pytest.raises(SettingsRefused, match="userActionRequired"):
        await unwilling.call_with_account(refusing(ca, "userActionRequired", 1))
    assert len(ca.payloads) == 2


async def test_account_is_deactivated_and_forgotten(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """The next order creates another, with another key."""
    session = make_session()
    with pytest.raises(SettingsRefused, match="there is no account at"):
        await session.deactivate()
    await session.ready()
    before = stored_account(store, ca)
    await session.deactivate()
    assert ca.payloads[-1] == ("1", {"status": "deactivated"})
    assert store.account(ca.directory) is None
    await session.ready()
    assert stored_account(store, ca).thumbprint != before.thumbprint


async def test_operators_own_key_is_his(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession], tmp_path: Path
) -> None:
    """It is not stored, nor changed; another own key is another account."""
    keys = [new_account_key() for _ in range(2)]
    sessions = [make_session(acme_account_key=key.json_dumps()) for key in keys]
    with pytest.raises(SettingsRefused, match="acme_account_key is your own key, which cannot be changed here"):
        await sessions[0].change_key()
    for session, key in zip(sessions, keys, strict=True):
        assert thumbprint((await session.ready()).key) == thumbprint(key)
        account = stored_account(store, ca)
        assert (account.thumbprint, account.key) == (thumbprint(key), "")
    assert ca.asked["account"] == 2
    with pytest.raises(SettingsRefused, match="unauthorized"):  # and no stored key is tried in its place
        await sessions[0].call_with_account(refusing(ca, "unauthorized", 1))


async def test_ca_that_changes_no_keys_is_not_asked_to(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """No second key is stored either."""
    ca.change("directory", lambda reply: reply.body.pop("keyChange"))
    session = make_session()
    await session.ready()
    with pytest.raises(SettingsRefused, match="does not support changing account keys"):
        await session.change_key()
    assert stored_account(store, ca).next_key == ""


async def test_stored_key_that_cannot_be_read_says_what_to_do(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """And quotes nothing of it."""
    store.save_account(Account(ca.directory, "mark", key='{"kty": "secret"}'))
    with pytest.raises(SettingsRefused, match="delete that record, and a new account is created") as caught:
        await make_session().ready()
    assert "secret" not in str(caught.value)


async def test_binding_of_the_options_is_used(
    ca: Ca, make_session: Callable[..., AccountSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the CA is asked for none."""

    def give(*_: object) -> ExternalAccountBinding:
        raise AssertionError("a binding was asked for")

    monkeypatch.setattr("mitmproxy_acme.ca.account_session.request_binding", give)
    mac_key = jose.encode_b64jose(b"s" * 32)
    entry = f"{ca.directory};eab_kid=mine;eab_hmac_key={mac_key};eab_alg=HS384"
    await make_session(acme_ca=[entry], acme_email="a@b.test", binding_url="https://ca.test/eab").ready()
    (header,) = [payload["externalAccountBinding"]["protected"] for _, payload in ca.payloads]
    sent = json.loads(jose.decode_b64jose(header))
    assert (sent["kid"], sent["alg"]) == ("mine", "HS384")


@pytest.mark.parametrize("taken", [True, False])
async def test_binding_of_the_ca_is_kept_until_it_is_refused(
    ca: Ca,
    store: Store,
    make_session: Callable[..., AccountSession],
    monkeypatch: pytest.MonkeyPatch,
    taken: bool,
) -> None:
    """Each request gives another, and their number may be limited; one that the CA refuses is asked for anew."""
    given = []

    def give(*_: object) -> ExternalAccountBinding:
        given.append(_)
        return ExternalAccountBinding(f"kid-{len(given)}", jose.encode_b64jose(b"s" * 32))

    def refuse(reply: Reply) -> None:
        reply.status, reply.body = (
            400,
            {"type": f"{ERROR}externalAccountRequired" if not taken else f"{ERROR}rateLimited"},
        )

    monkeypatch.setattr("mitmproxy_acme.ca.account_session.request_binding", give)
    ca.change("account", refuse)
    for _ in range(2):
        with pytest.raises(IssuanceError):
            await make_session(acme_email="a@b.test", binding_url="https://ca.test/eab").ready()
    assert len(given) == (1 if taken else 2)
    assert stored_account(store, ca).eab_kid == ("kid-1" if taken else "")
    headers = [payload["externalAccountBinding"]["protected"] for _, payload in ca.payloads]
    kids = [json.loads(jose.decode_b64jose(header))["kid"] for header in headers]
    assert kids == (["kid-1", "kid-1"] if taken else ["kid-1", "kid-2"])


async def test_failure_of_the_ca_is_no_sign_of_another_key(ca: Ca, make_session: Callable[..., AccountSession]) -> None:
    """Whatever it calls it: the stored key is not tried in its place."""
    session, tries = make_session(), list[Client]()
    await session.ready()
    await make_session().change_key()

    async def fail(client: Client) -> None:
        tries.append(client)
        raise IssuerUnavailable("a word of theirs", problem=Problem("someWordOfTheirs", "as told", 503))

    with pytest.raises(IssuerUnavailable):
        await session.call_with_account(fail)
    assert len(tries) == 1


async def test_account_that_is_no_longer_stored_has_no_other_key(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """The CA's refusal is told."""
    session = make_session()
    await session.ready()
    store.delete_account(ca.directory)
    with pytest.raises(SettingsRefused, match="unauthorized"):
        await session.call_with_account(refusing(ca, "unauthorized", 1))


async def test_account_of_an_own_key_is_registered_once(
    ca: Ca, store: Store, make_session: Callable[..., AccountSession]
) -> None:
    """Its URL is stored, though not its key."""
    key = new_account_key().json_dumps()
    for _ in range(2):
        assert (await make_session(acme_account_key=key).ready()).account_uri == f"{ca.base}/account/1"
    assert ca.asked["account"] == 1
    assert stored_account(store, ca).key == ""
