"""The service behind command bar, API and command line: what counts as issued, and when to try again."""

from collections.abc import AsyncIterator

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin import problems
from mitmproxy_acme.admin.certificate_service import CertificateService, Outcome
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.errors import (
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NotFound,
    WrongNode,
)
from mitmproxy_acme.core.events import CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from tests.mitmproxy_acme.fakes import EPOCH, Clock, FakeIssuer, make_certificate, manager_on

A = ServerName("a.example.test")
SECOND, ELSEWHERE = "https://second.test/dir", "https://elsewhere.test/dir"


@pytest.fixture
def second(clock: Clock) -> FakeIssuer:
    return FakeIssuer(clock, directory=SECOND, name="second")


@pytest.fixture
async def service(
    memory: Memory, clock: Clock, issuer: FakeIssuer, second: FakeIssuer
) -> AsyncIterator[CertificateService]:
    """The certificates of a proxy with two CAs."""
    manager = manager_on(memory, clock, issuer, second)
    yield CertificateService(manager, Inventory(manager))
    await manager.close()


async def _fail(service: CertificateService, name: ServerName = A) -> IssuanceError:
    with pytest.raises(IssuanceError) as raised:
        await service.issue(name)
    return raised.value


@pytest.mark.parametrize(
    ("directory", "outcome"), [(SECOND, Outcome.STORED), (ELSEWHERE, Outcome.OBTAINED)], ids=["listed", "not listed"]
)
async def test_certificate_of_any_ca_of_the_options_is_stored_already(
    service: CertificateService, memory: Memory, directory: str, outcome: Outcome
) -> None:
    """Whichever of them is preferred; one of a CA that the options do not list is replaced."""
    memory.put(f"certificates/{A}", make_certificate([A], ca=directory).to_record())
    assert (await service.issue(A)).outcome is outcome


async def test_one_of_two_cas_backs_off(
    service: CertificateService, clock: Clock, issuer: FakeIssuer, second: FakeIssuer
) -> None:
    """Other names may be issued by the other CA; when both back off, the one that is asked first counts."""
    issuer.error, second.error = IssuerUnavailable("the first is down"), ChallengeFailed("no route")
    assert service.explain(A, await _fail(service)).stop == ""
    clock.advance(30)
    second.error = IssuerUnavailable("so is the second", retry_after=3_600.0)
    failure = service.explain(ServerName("b.example.test"), await _fail(service, ServerName("b.example.test")))
    assert failure.stop == "the first is down"


async def test_only_ca_that_is_down_stops_others_though_a_person_cleared_its_backoff(
    memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """Of two names that a person asks for at once, the second may clear the backoff that the first one caused."""
    manager = manager_on(memory, clock, issuer)
    service = CertificateService(manager, Inventory(manager))
    assert service.explain(A, IssuerUnavailable("it is down")).stop == "it is down"
    assert service.explain(A, ChallengeFailed("no route")).stop == ""


async def test_one_of_two_cas_that_is_down_stops_no_others(service: CertificateService) -> None:
    """Though a person has cleared its backoff: other names may be ordered at the other CA."""
    assert service.explain(A, IssuerUnavailable("it is down")).stop == ""


async def test_time_of_the_next_attempt(service: CertificateService, issuer: FakeIssuer, second: FakeIssuer) -> None:
    """It is the end of the backoff, in Unix seconds; the error itself knows it, or the backoff that it caused."""
    issuer.error = second.error = ChallengeFailed("no route")
    failure = service.explain(A, await _fail(service))
    assert (failure.kind, failure.reason, failure.retry_at) == (problems.CHALLENGE_FAILED, "no route", EPOCH + 60)
    later = service.explain(A, BackingOff("later", until=EPOCH + 7))
    assert (later.kind, later.retry_at) == (problems.BACKING_OFF, EPOCH + 7)


async def test_pages(service: CertificateService, memory: Memory) -> None:
    """Each page says what the next one follows; the last says None."""
    for name in ("a.example.test", "b.example.test", "c.example.test"):
        memory.put(f"certificates/{name}", make_certificate([name]).to_record())
    await service.inventory.load()
    page = await service.page(size=2)
    assert [document["host"] for document in page.documents] == ["a.example.test", "b.example.test"]
    assert page.after == "b.example.test"
    last = await service.page(size=2, after=page.after)
    assert ([document["host"] for document in last.documents], last.after) == (["c.example.test"], None)


async def test_delete_without_revocation(service: CertificateService, memory: Memory, issuer: FakeIssuer) -> None:
    """The CA is not asked; a second time there is nothing to delete."""
    await service.issue(A)
    await service.delete(A)
    assert (issuer.revoked, memory.keys("certificates/")) == ([], [])
    with pytest.raises(NotFound, match=rf"^no certificate is stored for {A}$"):
        await service.delete(A)


async def test_renewal_of_all_is_refused_while_the_storage_is_down(
    service: CertificateService, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nothing is due, and so nothing would be written: the person hears it."""
    down = StorageUnavailable("connection refused")

    def fail(key: str) -> bytes:
        raise down

    monkeypatch.setattr(memory, "get", fail)
    service.manager.health.trouble(down)
    assert not await service.manager.health.check()
    with pytest.raises(StorageUnavailable, match="connection refused"):
        await service.renew_all_due()


async def test_data_node_does_not_renew_all(memory: Memory, clock: Clock, issuer: FakeIssuer) -> None:
    """It would only list what it never checks."""
    manager = manager_on(memory, clock, issuer, acme_role="data", acme_storage="redis://127.0.0.1/0")
    memory.put(f"certificates/{A}", make_certificate([A], now=EPOCH - 70 * DAY).to_record())
    service = CertificateService(manager, Inventory(manager))
    await service.inventory.load()
    with pytest.raises(WrongNode, match="ask a control node"):
        await service.renew_all_due()
    assert memory.keys("calendar/") == []
    await manager.close()


async def test_renewal_of_all_lists_what_is_due_however_much(
    service: CertificateService, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page; what is not due is left alone."""
    monkeypatch.setattr("mitmproxy_acme.admin.certificate_service._PAGE", 2)
    due = [f"due{number}.example.test" for number in range(5)]
    for name in due:
        memory.put(f"certificates/{name}", make_certificate([name], now=EPOCH - 70 * DAY).to_record())
    memory.put(f"certificates/{A}", make_certificate([A]).to_record())
    await service.inventory.load()
    await service.renew_all_due()
    assert [entry.id for entry in service.manager.schedule.due_by(clock())] == due


async def test_page_of_what_no_client_accepts(service: CertificateService, memory: Memory) -> None:
    """A person who looks for trouble sees nothing else."""
    memory.put(f"certificates/{A}", make_certificate([A]).to_record())
    memory.put(
        "certificates/old.example.test", make_certificate(["old.example.test"], now=EPOCH - 91 * DAY).to_record()
    )
    await service.inventory.load()
    assert [document["host"] for document in (await service.page(size=9)).documents] == [A, "old.example.test"]
    assert [document["host"] for document in (await service.page(size=9, invalid_only=True)).documents] == [
        "old.example.test"
    ]


async def test_all_that_is_due_is_renewed_page_by_page(
    service: CertificateService, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the renewer is woken."""
    monkeypatch.setattr("mitmproxy_acme.admin.certificate_service._PAGE", 2)
    names = [ServerName(f"n{number}.example.test") for number in range(5)]
    for name in names:
        memory.put(f"certificates/{name}", make_certificate([name], now=EPOCH - 70 * DAY).to_record())
    heard = list[Event]()
    service.manager.events.subscribe(heard.append)
    await service.inventory.load()
    await service.renew_all_due()
    assert {entry.id for entry in service.manager.schedule.due_by(clock())} == set(names)
    assert CheckScheduled(clock()) in heard
