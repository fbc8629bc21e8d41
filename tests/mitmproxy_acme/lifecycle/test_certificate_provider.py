"""What is served while an order fails or runs, and what is remembered of a refusal."""

import asyncio
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    AcmeError,
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    NameNotAllowed,
    NoControlNode,
    NotFound,
    RecordRefused,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest, Requester
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, FakeIssuer, make_certificate

A, B = (ServerName(f"{letter}.example.test") for letter in "ab")


def store(memory: Memory, name: ServerName = A, **how: Any) -> Certificate:
    """Store one of another CA: it can be served, and is not what the options want."""
    certificate = make_certificate([name], **({"ca": "https://other.test/directory"} | how))
    view = Store(memory, UNSEALED)
    assert view.replace(view.slot(name), certificate)
    return certificate


class Orders:
    """Stands in for the obtainer: keeps what is asked of it, and fails as it is told."""

    def __init__(self, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = list[OrderRequest]()
        self.started = list[OrderRequest]()
        self.error: Exception | None = None
        kind = type(manager._parts.obtainer)
        monkeypatch.setattr(kind, "obtain", lambda _, request: self._obtain(request))
        monkeypatch.setattr(kind, "start", lambda _, request: self.started.append(request))

    async def _obtain(self, request: OrderRequest) -> Certificate:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return make_certificate([request.subject.id])


@pytest.mark.parametrize(
    "error",
    [
        ChallengeFailed("no"),
        BackingOff("later", until=1.0),
        NoControlNode("none"),
        RecordRefused("sealed"),
        StorageUnavailable("down"),
    ],
)
@pytest.mark.parametrize("entrance", ["handshake", "ensure"])
async def test_stored_certificate_is_served_where_a_better_one_cannot_be_obtained(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, error: Exception, entrance: str
) -> None:
    """Whatever the reason is; without one the error is told."""
    manager = make_manager()
    orders, old = Orders(manager, monkeypatch), store(memory)
    orders.error = error

    async def ask(name: ServerName) -> Certificate | None:
        if entrance == "handshake":
            return await manager.certificate_for(name, on_demand=True)
        return await manager._parts.provider.ensure(Subject((name,)))

    found = await ask(A)
    assert found is not None
    assert found.fingerprint == old.fingerprint
    assert manager.cache.get(A) is found
    with pytest.raises(type(error)):
        await ask(B)
    assert manager.cache.get(B) is None


async def test_fault_of_our_own_is_not_hidden_by_what_is_stored(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager()
    orders = Orders(manager, monkeypatch)
    store(memory)
    orders.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await manager.certificate_for(A, on_demand=True)


@pytest.mark.parametrize(
    ("options", "is_stored", "requester"),
    [
        ({}, False, Requester.VISITOR),
        ({}, True, Requester.OPERATOR),
        ({"acme_certificates": (A,)}, False, Requester.OPERATOR),
    ],
)
@pytest.mark.parametrize("on_demand", ["wait", "background"])
async def test_order_of_a_visitor_says_for_whom_it_is(
    make_manager: MakeManager,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    is_stored: bool,
    requester: Requester,
    on_demand: str,
) -> None:
    """A name that is listed, or was ever stored, is the operator's own; the client counts for the others."""
    manager = make_manager(acme_on_demand=on_demand, **options)
    orders, old = Orders(manager, monkeypatch), store(memory) if is_stored else None
    await manager.certificate_for(A, on_demand=True, client="192.0.2.1")
    if on_demand == "background" and is_stored:
        assert (orders.requests, orders.started) == ([], [])  # the renewer replaces it
        return
    (request,) = orders.requests if on_demand == "wait" else orders.started
    assert (request.subject.id, request.requester, request.client) == (A, requester, "192.0.2.1")
    assert (request.replacing and request.replacing.fingerprint) == (old and old.fingerprint)


async def test_stored_certificate_is_served_while_its_successor_is_obtained_in_the_background(
    make_manager: MakeManager, memory: Memory, clock: Clock
) -> None:
    """The lookup has scheduled that."""
    manager, old = make_manager(acme_on_demand="background"), store(memory)
    found = await manager.certificate_for(A, on_demand=True)
    assert found is not None
    assert found.fingerprint == old.fingerprint
    assert manager.cache.get(A) is found
    assert [check.id for check in manager.schedule.due_by(clock())] == [A]


@pytest.mark.parametrize("is_stored", [True, False])
async def test_nothing_is_ordered_where_only_stored_names_are_served(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, is_stored: bool
) -> None:
    """With ``acme_on_demand=off``; and by no connection that is not on demand, but for what is listed."""
    manager = make_manager(acme_on_demand="off")
    if is_stored:
        store(memory)
        assert await manager.certificate_for(A, on_demand=True) is not None
    else:
        with pytest.raises(IssuanceError, match="no certificate is stored, and acme_on_demand is off"):
            await manager.certificate_for(A, on_demand=True)
    listed = make_manager(acme_certificates=(A,))
    assert (await listed.certificate_for(A, on_demand=False) is not None) is is_stored
    with pytest.raises(NameNotAllowed):
        await make_manager().certificate_for(A, on_demand=False)
    assert issuer.orders == []


@pytest.mark.parametrize(("error", "seconds"), [(ChallengeFailed("no"), 10.0), (StorageUnavailable("down"), 1.0)])
async def test_refusal_is_repeated_from_memory_for_a_while(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, clock: Clock, error: Exception, seconds: float
) -> None:
    """Strangers who ask again cost nothing; no longer than the name backs off."""
    manager = make_manager()
    orders = Orders(manager, monkeypatch)
    orders.error = error
    for after, asked in ((0.0, 1), (0.0, 1), (seconds - 0.01, 1), (0.01, 2)):
        clock.advance(after)
        with pytest.raises((AcmeError, StorageUnavailable)):
            await manager.certificate_for(A, on_demand=True)
        assert len(orders.requests) == asked
        await asyncio.sleep(0)


async def test_refusal_is_repeated_no_longer_than_the_backoff(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    manager = make_manager()
    orders = Orders(manager, monkeypatch)
    orders.error = BackingOff("later", until=clock() + 3)
    for after, asked in ((0.0, 1), (2.9, 1), (0.1, 2)):
        clock.advance(after)
        with pytest.raises(BackingOff):
            await manager.certificate_for(A, on_demand=True)
        assert len(orders.requests) == asked


async def test_only_what_is_stored_is_renewed(make_manager: MakeManager, memory: Memory, issuer: FakeIssuer) -> None:
    """A slip must not order a name for the first time; a record that cannot be read is replaced."""
    manager = make_manager()
    with pytest.raises(NotFound, match=r"^no certificate is stored for a\.example\.test$"):
        await manager.renew(Subject((A,)))
    assert issuer.orders == []
    old = store(memory)
    renewed = await manager.renew(Subject((A,)))
    assert (renewed.fingerprint != old.fingerprint, len(issuer.orders)) == (True, 1)
    assert manager.usage.served[A] is renewed  # a person counts as a client
