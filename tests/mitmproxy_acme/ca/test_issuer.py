"""An order at a CA that means no good: how often it is asked, where we are led, and how the order ends.

Waits are not waited for: time is the loop's, and each sleep moves it on.
"""

import asyncio
import base64
import email.utils
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.ca import issuer as issuer_module
from mitmproxy_acme.ca.issuer import Issuer
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.ca.solver import Solver
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    ChallengeFailed,
    DeliveryRefused,
    IssuanceError,
    IssuerUnavailable,
    RateLimited,
    SettingsRefused,
    Unfinished,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.keys import name_scope
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, make_certificate
from tests.servers.hostile import ERROR, Canary, HostileCa, Reply

type Change = Callable[[Reply], object]

_A, _B = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "ab")
# newOrder, authorization, challenge, authorization, finalize, certificate; an order that is valid at once saves a look.
_USUAL = {"directory": 1, "nonce": 1, "account": 1, "order": 1, "authorization": 2, "challenge": 1, "finalize": 1}


class Leaps:
    """Time of the running loop, which a sleep moves on at once: by ``passed`` seconds so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        loop, sleep = asyncio.get_running_loop(), asyncio.sleep
        real = loop.time

        async def leap(seconds: float) -> None:
            self.passed += seconds
            await sleep(0)

        monkeypatch.setattr(loop, "time", lambda: real() + self.passed)
        monkeypatch.setattr(asyncio, "sleep", leap)


@pytest.fixture
async def leaps(monkeypatch: pytest.MonkeyPatch) -> Leaps:
    return Leaps(monkeypatch)


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[HostileCa]:
    with HostileCa(tmp_path / "hostile") as server:
        yield server


@pytest.fixture(params=["plain", "TLS"])
def canary(request: pytest.FixtureRequest, ca: HostileCa) -> Iterator[Canary]:
    """A server that the CA may not send us to, though its certificate would be trusted."""
    with Canary(ca.context if request.param == "TLS" else None) as server:
        yield server


def config_of(ca: HostileCa, **options: Any) -> Config:
    defaults = {"acme_ca": [ca.directory], "acme_ca_bundle": str(ca.ca_bundle), "acme_tos_accepted": True}
    return Config.from_options({"acme_domains": ["**.example.test"]} | defaults | options)


@pytest.fixture
def make_issuer(ca: HostileCa, threads: ThreadPools) -> Callable[..., Issuer]:
    """Make an issuer for the CA; options as keywords."""

    def make(**options: Any) -> Issuer:
        (issuer,) = issuers_of(config_of(ca, **options), Store(Memory(), UNSEALED), threads)
        return issuer

    return make


async def fails(issuer: Issuer, subject: Subject = _A) -> IssuanceError:
    with pytest.raises(IssuanceError) as caught:
        await issuer.obtain(subject)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000
    return caught.value


async def test_usual_order(ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]) -> None:
    """A CA that does as it should is asked six times for a certificate."""
    certificate = await make_issuer().obtain(_A)
    assert isinstance(certificate, Certificate)
    assert ca.asked == _USUAL | {"certificate": 1}


def _sets(**fields: Any) -> Change:
    return lambda reply: reply.body.update(fields)


def _leads(resource: str, url: str) -> Change:
    """Return what makes a reply of the resource lead to ``url``."""

    def links(reply: Reply) -> None:
        reply.headers["Location"] = url

    def challenge(reply: Reply) -> None:
        reply.body["challenges"][0]["url"] = url

    field = {"order": "authorizations", "finalize": "certificate"}.get(resource, resource)
    value = [url] if field == "authorizations" else url
    return {"account": links, "location": links, "authorization": challenge}.get(resource, _sets(**{field: value}))


@pytest.mark.parametrize("resource", ["order", "location", "authorization", "finalize", "account"])
async def test_url_elsewhere_is_not_asked(
    ca: HostileCa, canary: Canary, leaps: Leaps, make_issuer: Callable[..., Issuer], resource: str
) -> None:
    """Neither by a signed request nor for a nonce: replies only lead to hosts of the directory."""
    ca.change("order" if resource == "location" else resource, _leads(resource, canary.url))
    error = await fails(make_issuer())
    assert isinstance(error, IssuerUnavailable)
    assert f"{ca.directory} sends us to " in str(error)
    assert canary.requests == []
    assert ca.asked["certificate"] == 0


async def test_finalize_url_elsewhere(
    ca: HostileCa, canary: Canary, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """It is refused as the order comes, before anything is proved."""
    ca.change("order", _sets(finalize=canary.url))
    assert isinstance(await fails(make_issuer()), IssuerUnavailable)
    assert (canary.requests, ca.asked["authorization"]) == ([], 0)


@pytest.mark.parametrize("endpoint", ["newNonce", "newAccount", "newOrder", "renewalInfo", "keyChange", "revokeCert"])
async def test_endpoint_without_tls(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], endpoint: str
) -> None:
    """RFC 8555 section 6.1: the directory that names it is given up."""
    with Canary() as canary:
        ca.change("directory", _sets(**{endpoint: canary.url}))
        error = await fails(make_issuer())
    assert "which is not an https:// URL" in str(error)
    assert (canary.requests, dict(ca.asked)) == ([], {"directory": 1})


async def test_other_host_that_the_directory_names(
    ca: HostileCa, tmp_path: Path, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """It is the CA's own: orders may be at another host than the directory."""
    ca.change("directory", _sets(newNonce=f"{ca.base.replace('localhost', '127.0.0.1')}/nonce"))
    await make_issuer().obtain(_A)
    assert ca.asked["nonce"] == 1


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("resource", ["nonce", "account", "order", "challenge", "finalize", "certificate"])
async def test_redirect_is_not_followed(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], resource: str, status: int
) -> None:
    """A request was signed for one URL (RFC 8555 section 6.4), and is for no other, even of the same CA."""
    elsewhere = f"{ca.base}/elsewhere"

    def redirect(reply: Reply) -> None:
        reply.status, reply.headers["Location"] = status, elsewhere

    ca.change(resource, redirect)
    error = await fails(make_issuer())
    assert isinstance(error, IssuerUnavailable)
    assert f"answers with a redirect (HTTP {status} to {elsewhere})" in str(error)
    assert (ca.asked["elsewhere"], ca.asked[resource]) == (0, 1)


async def test_directory_that_has_moved(
    ca: HostileCa, canary: Canary, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """The message says where to: the operator decides whether to follow."""

    def redirect(reply: Reply) -> None:
        reply.status, reply.headers["Location"] = 301, canary.url

    ca.change("directory", redirect)
    error = await fails(make_issuer())
    assert f"has moved to {canary.url}; if that URL belongs to your CA, write it in acme_ca" in str(error)
    assert canary.requests == []


async def test_alternate_chain_elsewhere(
    ca: HostileCa, canary: Canary, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """It is no alternate: the CA's default is used. Of its own alternates ten are fetched."""

    def offer(reply: Reply) -> None:
        order = next(iter(ca.orders))
        own = (f"{ca.base}/certificate/{order}-{number}" for number in range(100))
        reply.headers["Link"] = ", ".join(f'<{url}>;rel="alternate"' for url in (canary.url, *own))

    ca.change("certificate", offer)
    await make_issuer(acme_preferred_chain="Another Root").obtain(_A)
    assert (canary.requests, ca.asked["certificate"]) == ([], 11)


@pytest.mark.parametrize(
    "wait", ["-1", "0", "-99999999999", "nan", "-inf", "1e-9", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT", "0.001"]
)
async def test_order_that_is_always_processing(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], wait: str
) -> None:
    """Whatever its Retry-After is, there are only a few polls in three minutes."""
    _hangs(ca, wait)
    error = await fails(make_issuer())
    assert isinstance(error, Unfinished)
    assert str(error).endswith(f" did not complete the order for {_A.id} in time")
    assert 20 < ca.asked["look"] < 60
    assert leaps.passed < 200


@pytest.mark.parametrize("wait", ["999999999999999999999", "inf", "1e300", "9" * 5_000])
async def test_order_whose_wait_has_no_end(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], wait: str
) -> None:
    """It is polled anyway, and ends in time."""
    _hangs(ca, wait)
    assert isinstance(await fails(make_issuer()), Unfinished)
    assert 10 < ca.asked["look"] < 60
    assert leaps.passed < 200


def _hangs(ca: HostileCa, wait: str) -> None:
    def hang(reply: Reply) -> None:
        reply.body |= {"status": "processing"}
        reply.headers |= {"Retry-After": wait, "Date": "Thu, 26 Nov 2026 01:00:00 GMT"}

    ca.change("finalize", hang)
    ca.change("look", hang)


async def test_validation_that_is_always_pending(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """The same of an authorization."""

    def hang(reply: Reply) -> None:
        reply.body["status"] = "pending"
        reply.headers["Retry-After"] = "-5"

    ca.change("authorization", hang)
    assert isinstance(await fails(make_issuer()), Unfinished)
    assert 20 < ca.asked["authorization"] < 60
    assert leaps.passed < 200


def _of_another(reply: Reply) -> None:
    reply.body["identifier"] = {"type": "dns", "value": "victim.example.com"}


def _of_long_token(reply: Reply) -> None:
    reply.body["challenges"][0]["token"] = "A" * 100_000


def _of_many_challenges(reply: Reply) -> None:
    reply.body["challenges"] *= 1_000


@pytest.mark.parametrize(
    ("resource", "change", "said", "most"),
    [
        ("order", _sets(authorizations=["https://localhost/"] * 10_000), "has 10000 authorizations for 1 names", 0),
        ("order", _sets(authorizations=[]), "is pending and has no authorizations", 0),
        ("order", _sets(status="invalid"), "cancelled the order for a.example.test and did not say why", 0),
        ("order", _sets(status="invalid", authorizations=None), "did not say why", 0),
        ("order", _sets(status="valid"), "is valid from the start", 0),
        ("order", _sets(status="processing"), "is processing from the start", 0),
        ("order", _sets(identifiers=[{"type": "dns", "value": "victim.example.com"}]), "is for other names", 0),
        ("order", _sets(identifiers=[]), "is for other names", 0),
        ("authorization", _sets(status="invalid"), "has an authorization that is invalid from the start", 1),
        ("authorization", _sets(status="revoked"), "has an authorization that is revoked from the start", 1),
        ("authorization", _of_another, "has an authorization for victim.example.com", 1),
        ("authorization", _of_long_token, "has a challenge whose token is too long", 1),
        ("authorization", _of_many_challenges, "has an authorization with 1000 challenges", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_order_that_is_none(
    ca: HostileCa,
    leaps: Leaps,
    make_issuer: Callable[..., Issuer],
    resource: str,
    change: Change,
    said: str,
    most: int,
) -> None:
    """It is given up at once, before anything more is asked: its failure is of this name at this CA."""
    ca.change(resource, change)
    error = await fails(make_issuer())
    assert isinstance(error, Unfinished)
    assert said in str(error)
    assert (ca.asked["order"], ca.asked["authorization"], ca.asked["challenge"], leaps.passed) == (1, most, 0, 0)


@pytest.mark.parametrize(
    ("type", "error"),
    [("serverInternal", Unfinished), ("unauthorized", ChallengeFailed), ("rateLimited", RateLimited)],
)
async def test_order_that_says_why_it_is_invalid(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], type: str, error: type[IssuanceError]
) -> None:
    """It is the order's fault, and not the CA's or our account's: the next name is ordered there."""
    ca.change("order", _sets(status="invalid", error={"type": f"{ERROR}{type}", "detail": "why\nnot"}))
    found = await fails(make_issuer())
    assert isinstance(found, error)
    assert f"says {type}: why not" in str(found)


async def test_challenge_that_waits_to_be_asked_again(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """As at step-ca (RFC 8555 section 8.2): it is asked twice more, and the name is refused within seconds."""
    _fails_until(ca, 10)
    error = await fails(make_issuer())
    assert isinstance(error, ChallengeFailed)
    assert "could not validate a.example.test: connection: refused" in str(error)
    assert (ca.asked["challenge"], ca.asked["authorization"]) == (3, 4)
    assert leaps.passed < 5


async def test_challenge_that_is_met_when_asked_again(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """A short disturbance costs a second, not the order."""
    _fails_until(ca, 2)
    await make_issuer().obtain(_A)
    assert (ca.asked["challenge"], ca.asked["authorization"]) == (2, 3)


async def test_validation_that_fails_without_a_reason(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """As at acme2certifier, which forgets it: the name could not be validated, and no other CA would do better."""

    def fail(reply: Reply) -> None:
        if ca.asked["challenge"]:
            reply.body["status"] = "invalid"

    ca.change("authorization", fail)
    error = await fails(make_issuer())
    assert isinstance(error, ChallengeFailed)
    assert "could not validate a.example.test and did not say why" in str(error)


def _fails_until(ca: HostileCa, times: int) -> None:
    """Have the first validations fail as step-ca's do: the challenge stays pending, with an error."""

    def fail(reply: Reply) -> None:
        if 0 < ca.asked["challenge"] < times:
            reply.body["status"] = "pending"
            reply.body["challenges"][0]["error"] = {"type": f"{ERROR}connection", "detail": "refused"}

    ca.change("authorization", fail)


async def test_nonces_that_are_refused_cost_one_order(
    ca: HostileCa,
) -> None:
    """The CA answers, and other names are ordered there: only this one is left alone, and only for a while."""
    problem = {"type": f"{ERROR}badNonce"}

    def refuse(reply: Reply) -> None:
        reply.status, reply.body = 400, problem

    memory = Memory()
    manager = Manager(config_of(ca), memory)
    try:
        await manager.obtain(_B)
        ca.change("order", refuse)
        with pytest.raises(Unfinished, match="says badNonce"):
            await manager.obtain(_A)
        assert ca.asked["order"] == 1 + 30
        assert manager.store.backoff(ca.directory) is None
        assert manager.store.backoff(name_scope(_A.id, ca.directory)) is not None
        ca.heal()
        await manager.obtain(Subject((ServerName("c.example.test"),)))
    finally:
        await manager.close()


def _shouts(reply: Reply) -> None:
    text = "\x1b[2J\r\nERROR forged " * 100
    identifier = {"type": "dns", "value": text}
    sub = {"type": text, "detail": text, "identifier": identifier}
    reply.status, reply.headers["Content-Type"] = 400, "application/problem+json"
    reply.body = {"type": 40 * text, "detail": text, "title": text, "instance": text, "subproblems": [sub] * 50}


@pytest.mark.parametrize("resource", ["account", "order", "authorization", "challenge", "finalize", "certificate"])
async def test_texts_of_a_ca_are_one_line(ca: HostileCa, caplog: pytest.LogCaptureFixture, resource: str) -> None:
    """A page of text, or forged lines, reach neither the log nor the storage; and the name backs off."""
    ca.change(resource, _shouts)
    manager = Manager(config_of(ca), Memory())
    try:
        with pytest.raises(IssuanceError) as caught:
            await manager.obtain(_A)
        problem = caught.value.problem
        assert problem is not None
        assert len(problem.type) <= 100
        assert len(problem.identifiers) <= 100
        asked = ca.asked.total()
        with pytest.raises(IssuanceError):
            await manager.obtain(_A)
        assert ca.asked.total() == asked
    finally:
        await manager.close()
    for record in caplog.records:
        assert record.exc_info is None
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 2_000


@pytest.mark.parametrize("resource", ["directory", "nonce", "account", "order", "authorization", "certificate"])
async def test_header_that_drips(
    ca: HostileCa,
    leaps: Leaps,
    make_issuer: Callable[..., Issuer],
    threads: ThreadPools,
    monkeypatch: pytest.MonkeyPatch,
    resource: str,
) -> None:
    """A byte now and then is no reply: it counts as silence, and the thread is free for the next."""
    monkeypatch.setattr("mitmproxy_acme.ca.issuer.PATIENT", 0.5)
    ca.drip(resource)
    issuer = make_issuer()
    errors = await asyncio.gather(*(fails(issuer) for _ in range(5)))
    assert all(isinstance(error, IssuerUnavailable) for error in errors)
    assert {str(error) for error in errors} == {f"{ca.directory} cannot be reached: it does not answer in time"}
    assert await asyncio.gather(*(threads.issuer(int, "7") for _ in range(8))) == [7] * 8


_ODD: tuple[object, ...] = (
    None,
    -1,
    10**400,
    "",
    "x\x1b[2J\r\n" * 1_000,
    "processing",
    [],
    [{}],
    {"type": "dns", "value": ["a"]},
    {"type": {}, "detail": [], "subproblems": 7},
)


@pytest.mark.parametrize("resource", ["directory", "account", "order", "authorization", "challenge", "finalize"])
async def test_fields_of_any_shape(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], resource: str
) -> None:
    """Any value in a field leads to a certificate, or to a failure in one line, and always in time."""
    fields = {"error", "expires", "meta", "wildcard"}
    ca.change(resource, lambda reply: fields.update(reply.body))
    issuer = make_issuer()
    await issuer.obtain(_A)
    said: list[str] = []
    for name in sorted(fields):
        for odd in _ODD:
            ca.heal()
            ca.change(resource, _sets(**{name: odd}))
            if resource in ("directory", "account"):  # an issuer asks for them once
                issuer = make_issuer()
            try:
                await issuer.obtain(_A)
            except IssuanceError as error:
                said.append(str(error))
            assert ca.asked.total() < 120
    assert all(text.isprintable() and len(text) < 1_000 for text in said)


@pytest.mark.parametrize(("elsewhere", "replaces"), [(False, True), (True, False)], ids=["this CA", "another CA"])
def test_certificate_of_another_ca_is_not_named_as_replaced(
    ca: HostileCa, make_issuer: Callable[..., Issuer], elsewhere: bool, replaces: bool
) -> None:
    """RFC 9773 section 5: the CA that hears an id of another one refuses the order."""
    directory = "https://elsewhere.test/directory" if elsewhere else ca.directory
    assert make_issuer().is_replacement(make_certificate(["a.example.test"], ca=directory)) is replaces


async def test_no_account_is_created_without_consent(ca: HostileCa, threads: ThreadPools) -> None:
    """No one agrees to terms of service for the operator: not even if the options were let through."""
    config = replace(config_of(ca), tos_accepted=False)
    (issuer,) = issuers_of(config, Store(Memory(), UNSEALED), threads)
    error = await fails(issuer)
    assert isinstance(error, SettingsRefused)
    assert "acme_tos_accepted is not set" in str(error)
    assert ca.asked["account"] == 0


async def test_nothing_is_left_of_an_order_whose_proof_could_not_be_shown(
    ca: HostileCa, threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was presented before the failure is removed."""
    memory, present = Memory(), Solver.present

    async def present_and_fail(solver: Solver, proofs: Sequence[Proof]) -> None:
        await present(solver, proofs)
        raise IssuanceError("the second of them")

    monkeypatch.setattr(Solver, "present", present_and_fail)
    (issuer,) = issuers_of(config_of(ca), Store(memory, UNSEALED), threads)
    await fails(issuer)
    assert memory.keys("challenges/") == []


async def test_order_does_not_fail_for_a_proof_that_cannot_be_removed(
    ca: HostileCa, threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is there; the proof ends by itself."""

    def down(store: Store, proof: Proof) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(Store, "delete_proof", down)
    (issuer,) = issuers_of(config_of(ca), Store(Memory(), UNSEALED), threads)
    assert isinstance(await issuer.obtain(_A), Certificate)


async def test_name_that_is_validated_already_needs_no_proof(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """RFC 8555 section 7.5: CAs reuse authorizations, and such a challenge cannot be answered."""
    ca.change("authorization", _sets(status="valid"))
    assert isinstance(await make_issuer().obtain(_A), Certificate)
    assert (ca.asked["authorization"], ca.asked["challenge"]) == (1, 0)


async def test_ca_that_failed_once_is_asked_for_the_next_name(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """It has answered, though with an error: unlike one that is silent, it is not given up for all running orders."""

    def internal(reply: Reply) -> None:
        reply.status = 500
        reply.body = {"type": f"{ERROR}serverInternal", "detail": "a bad moment"}

    issuer = make_issuer()
    ca.change("order", internal)
    assert isinstance(await fails(issuer), IssuerUnavailable)
    ca.heal()
    assert isinstance(await issuer.obtain(_B), Certificate)


async def test_presenting_that_hangs_ends_with_the_order(
    ca: HostileCa, monkeypatch: pytest.MonkeyPatch, threads: ThreadPools
) -> None:
    """A DNS provider that never answers: the order is a failure like others, which backs off."""

    async def hang(solver: Solver, proofs: Sequence[Proof]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Solver, "present", hang)
    monkeypatch.setattr("mitmproxy_acme.ca.issuer._LAST_POLL", 0.0)
    (issuer,) = issuers_of(config_of(ca), Store(Memory(), UNSEALED), threads, timeout=0.5)
    assert "took too long" in str(await fails(issuer))


async def test_window_that_ends_before_it_starts_is_none(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """A CA that says so has said nothing; what it said before holds (RFC 9773 section 4.2)."""
    issuer, held = make_issuer(), make_certificate(["a.example.test"], ca=ca.directory)
    assert await issuer.renewal_info(held, EPOCH) is not None
    ca.change("renewal", _sets(suggestedWindow={"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}))
    with pytest.raises(IssuanceError):
        await issuer.renewal_info(held, EPOCH)


async def test_csr_that_is_refused_ends_the_order(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """Only a CA that is not ready yet is waited for (RFC 8555 section 7.4)."""

    def refuse(reply: Reply) -> None:
        reply.status = 403
        reply.body = {"type": f"{ERROR}badCSR", "detail": "a key that we do not like"}

    ca.change("finalize", refuse)
    assert "a key that we do not like" in str(await fails(make_issuer()))
    assert ca.asked["look"] == 0


async def test_directory_is_read_anew_after_a_day(
    ca: HostileCa, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA may move its endpoints; a proxy runs for years."""
    issuer = make_issuer()
    for _ in range(2):
        await issuer.obtain(_A)
    assert ca.asked["directory"] == 1
    monkeypatch.setattr("mitmproxy_acme.ca.account_session._DIRECTORY_LIFE", 0.0)
    await issuer.obtain(_A)
    assert ca.asked["directory"] == 2


def signers(ca: HostileCa, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note who signs each request to revoke: an account (kid), or a key alone (jwk)."""
    noted, answer = list[str](), ca.answer

    def note(path: str, posted: bytes) -> Reply | None:
        if path == "/revoke":
            header = base64.urlsafe_b64decode(json.loads(posted)["protected"] + "==")
            noted.append("account" if "kid" in json.loads(header) else "key")
        return answer(path, posted)

    monkeypatch.setattr(ca, "answer", note)
    return noted


async def test_other_ca_is_asked_neither_for_a_window_nor_told_what_is_replaced(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """It does not know the certificate; nor does a CA that knows no windows say one (RFC 9773)."""
    issuer, others = make_issuer(), make_certificate(["a.example.test"], ca="https://other.test/directory")
    assert await issuer.renewal_info(others, EPOCH) is None
    assert not issuer.is_replacement(others)
    assert ca.asked.total() == 0
    ca.change("directory", lambda reply: reply.body.pop("renewalInfo"))
    ours = make_certificate(["a.example.test"], ca=ca.directory)
    assert issuer.is_replacement(ours)
    assert await issuer.renewal_info(ours, EPOCH) is None
    assert ca.asked["renewal"] == 0


async def test_account_revokes_what_it_ordered(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key signs only where it is compromised, which proves that, or where the account may not."""
    signed, issuer = signers(ca, monkeypatch), make_issuer()
    certificate = await issuer.obtain(_A)
    await issuer.revoke(certificate, "superseded")
    assert signed == ["account"]
    await issuer.revoke(certificate, "keyCompromise")
    assert signed == ["account", "key"]

    def refuse_accounts(reply: Reply) -> None:
        if signed[-1] == "account":
            reply.status, reply.body = 403, {"type": f"{ERROR}unauthorized", "detail": "not yours"}

    ca.change("revoke", refuse_accounts)
    await issuer.revoke(certificate, "superseded")
    assert signed[2:] == ["account", "key"]


async def test_no_account_is_created_to_revoke(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An imported certificate's own key signs; so does that of another CA's, which is asked then."""
    signed = signers(ca, monkeypatch)
    await make_issuer().revoke(make_certificate(["a.example.test"], ca=ca.directory), "superseded")
    assert signed == ["key"]
    assert ca.asked["account"] == 0


async def test_certificate_of_another_ca_is_revoked_there_by_its_own_key(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though we have an account here, which has not ordered it."""
    signed, issuer, asked = signers(ca, monkeypatch), make_issuer(), list[str]()
    await issuer.obtain(_A)
    others = make_certificate(["a.example.test"], ca="https://other.test/directory")
    monkeypatch.setattr(issuer_module, "revoke_by_key", lambda certificate, *_: asked.append(certificate.ca))
    await issuer.revoke(others, "superseded")
    assert (signed, asked) == ([], ["https://other.test/directory"])


async def test_rehearsal_leaves_no_validation(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its authorizations are deactivated: the next rehearsal validates again. An order leaves them."""
    ordered, answer = list[str](), ca._authorization
    issuer = make_issuer()

    def note(id: str, payload: Any) -> Reply:
        ordered.append((payload or {}).get("status", "look"))
        return answer(id, payload)

    monkeypatch.setattr(ca, "_authorization", note)
    await issuer.obtain(_A)
    assert ordered == ["look", "look"]
    await issuer.rehearse(_A)
    assert ordered[2:] == ["look", "look", "deactivated"]


async def test_profile_that_the_ca_lacks_is_not_ordered(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """The directory lists others: it is said before anything is taken off the CA's limits."""
    ca.change("directory", _sets(meta={"profiles": {"classic": "the usual one"}}))
    issuer = make_issuer(acme_profile="nosuch")
    with pytest.raises(IssuanceError, match="nosuch"):
        await issuer.ready(_A)
    await make_issuer(acme_profile="classic").ready(_A)
    assert ca.asked["order"] == 0


async def test_timeout_of_another_part_is_not_the_orders(
    ca: HostileCa, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a fault of ours, and told as that."""

    async def fail(solver: Solver, proofs: Sequence[Proof]) -> None:
        raise TimeoutError("of something else")

    monkeypatch.setattr(Solver, "present", fail)
    with pytest.raises(TimeoutError, match="of something else"):
        await make_issuer().obtain(_A)


async def test_chain_that_is_cut_off_is_refused(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """What is delivered is counted as issued: the CA will not do better at once."""

    def cut(reply: Reply) -> None:
        reply.body = reply.body[:-40]

    ca.change("certificate", cut)
    error = await fails(make_issuer())
    assert isinstance(error, DeliveryRefused)
    assert f"{ca.directory} delivered a chain that cannot be served: " in str(error)


async def test_ca_that_is_not_ready_is_asked_until_it_is(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """RFC 8555 section 7.4: then the same CSR is sent again."""

    def refuse_first(reply: Reply) -> None:
        if ca.asked["finalize"] == 1:
            reply.status = 403
            reply.headers |= {"Content-Type": "application/problem+json", "Retry-After": "2"}
            reply.body = {"type": f"{ERROR}orderNotReady"}

    ca.change("finalize", refuse_first)
    ca.change("look", lambda reply: reply.body.update(status="pending" if ca.asked["look"] < 3 else "ready"))
    assert isinstance(await make_issuer().obtain(_A), Certificate)
    assert (ca.asked["finalize"], ca.asked["look"]) == (2, 3)


async def test_order_that_becomes_invalid_at_its_end(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """After the CSR; the CA says why."""
    for resource in ("finalize", "look"):
        ca.change(resource, _sets(status="invalid", error={"type": f"{ERROR}caa", "detail": "forbidden by CAA"}))
    error = await fails(make_issuer())
    assert isinstance(error, ChallengeFailed)
    assert "forbidden by CAA" in str(error)


@pytest.mark.parametrize("status", ["deactivated", "expired", "revoked", "invalid"])
async def test_authorization_that_cannot_become_valid_is_not_answered(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], status: str
) -> None:
    """Only a pending one can (RFC 8555 section 7.1.6). It is this order's fault: the CA takes the next one."""
    issuer = make_issuer()
    ca.change("authorization", _sets(status=status))
    error = await fails(issuer)
    assert isinstance(error, Unfinished)
    assert f"it has an authorization that is {status} from the start" in str(error)

    def explain(reply: Reply) -> None:
        reply.body["status"] = status
        reply.body["challenges"][0]["error"] = {"type": f"{ERROR}dns", "detail": "no such host"}

    ca.change("authorization", explain)
    error = await fails(issuer)
    assert isinstance(error, ChallengeFailed)
    assert "no such host" in str(error)
    assert ca.asked["challenge"] == 0
    ca.heal()
    assert isinstance(await issuer.obtain(_B), Certificate)


async def test_pauses_before_a_challenge_is_asked_again(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer]
) -> None:
    """One and two seconds: a CA that is asked again at once finds the same."""
    _fails_until(ca, 10)
    await fails(make_issuer())
    assert 3 <= leaps.passed < 5


def test_issuer_knows_what_the_operator_wrote(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """The CA's name in messages, and the roots of a private one."""
    issuer = make_issuer()
    assert (issuer.name, issuer.directory, issuer.ca_bundle) == (ca.directory, ca.directory, str(ca.ca_bundle))


async def test_name_that_has_no_time_left_is_not_asked_again(
    ca: HostileCa, leaps: Leaps, make_issuer: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause that would outlast the order is not made."""
    monkeypatch.setattr("mitmproxy_acme.ca.authorization._RETRY_AFTER", (1_000.0, 0.1))
    _fails_until(ca, 10)
    assert isinstance(await fails(make_issuer()), ChallengeFailed)
    assert ca.asked["challenge"] == 1
    assert leaps.passed < 5


def _tells(at: float) -> Callable[[Reply], object]:
    return lambda reply: reply.headers.update(Date=email.utils.formatdate(at, usegmt=True))


async def test_clock_of_the_ca_is_known_without_a_request(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """Each reply has told it."""
    ca.change("directory", _tells(EPOCH))
    issuer = make_issuer()
    ahead = await issuer.clock_ahead(lambda: EPOCH + 30.0, 60.0)
    assert ahead is not None
    assert 25.0 < ahead <= 30.0
    assert ca.asked["directory"] == 1
    asked = ca.asked.copy()
    await issuer.clock_ahead(lambda: EPOCH, 60.0)
    assert ca.asked == asked


async def test_clock_that_seems_wrong_is_compared_again(ca: HostileCa, make_issuer: Callable[..., Issuer]) -> None:
    """This machine may have slept since the last reply: its monotonic clock stood still meanwhile."""
    ca.change("directory", _tells(EPOCH))
    issuer = make_issuer()
    await issuer.ready(_A)
    ca.change("nonce", _tells(EPOCH + 7_200.0))
    asked = ca.asked["nonce"]
    ahead = await issuer.clock_ahead(lambda: EPOCH + 7_200.0, 60.0)
    assert ahead is not None
    assert -5.0 < ahead <= 0.0
    assert ca.asked["nonce"] == asked + 1


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
async def test_ca_that_does_not_tell_the_time_works(
    ca: HostileCa, make_issuer: Callable[..., Issuer], headers: dict[str, str]
) -> None:
    """It is not asked again and again for it."""
    for resource in ("directory", "nonce", "account"):
        ca.change(resource, lambda reply: reply.headers.update(headers))
    issuer = make_issuer()
    await issuer.ready(_A)
    asked = ca.asked.copy()
    assert await issuer.clock_ahead(lambda: EPOCH, 60.0) is None
    assert ca.asked == asked
