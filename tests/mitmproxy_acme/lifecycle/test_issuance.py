"""What an order counts, logs and publishes when it succeeds and when it fails."""

import dataclasses

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff, ChallengeFailed, IssuanceError, Problem
from mitmproxy_acme.core.events import CertificateFailed, CertificateObtained, Event
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.names import ServerName, Subject
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer

_SUBJECT = Subject((ServerName("a.example.test"),))


class Told(Instrumentation):
    """Keeps how orders ended."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, IssuanceError | None]] = []

    def order(self, ca: str, seconds: float, error: IssuanceError | None) -> None:
        assert seconds >= 0
        self.orders.append((ca, error))


async def test_success_is_told_when_it_is_stored(make_manager: MakeManager) -> None:
    """One event, with the certificate as it is stored; a second one says that it replaces the first."""
    manager, heard = make_manager(), list[Event]()
    manager.events.subscribe(heard.append)

    first = await manager.obtain(_SUBJECT)
    second = await manager.renew(_SUBJECT)

    obtained = [event for event in heard if isinstance(event, CertificateObtained)]
    assert [(event.certificate, event.renewal, event.ca) for event in obtained] == [
        (first, False, "fake-ca"),
        (second, True, "fake-ca"),
    ]
    assert {event.node for event in obtained} == {manager.node.id}


async def test_failure_is_told_and_counted(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """With the CA's problem type, the number of failures, and the time of the next attempt."""
    manager, heard = make_manager(), list[Event]()
    manager.events.subscribe(heard.append)
    issuer.error = ChallengeFailed("dns: no such name", problem=Problem("dns"))

    for _ in range(2):
        with pytest.raises(ChallengeFailed):
            await manager.obtain(_SUBJECT)
        clock.advance(30 * 86_400.0 - 1)

    failed = [event for event in heard if isinstance(event, CertificateFailed)]
    assert [(event.failures, event.problem, event.reason) for event in failed] == [
        (1, "dns", "dns: no such name"),
        (2, "dns", "dns: no such name"),
    ]
    assert all(event.retry_at > 0 for event in failed)


@pytest.mark.parametrize("kind", [KeyError, OSError, OverflowError, RuntimeError, TimeoutError, UnsupportedAlgorithm])
async def test_fault_of_ours_is_a_failure_like_others(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    """It is logged with its traceback, measured, counted, and published without its text, which might be anything."""
    manager, told = make_manager(), Told()
    issuance = dataclasses.replace(manager._parts.obtainer.failover, measures=told)

    async def fail(*_: object) -> None:
        raise kind("something internal")

    monkeypatch.setattr(issuer, "obtain", fail)
    said = f"{kind.__name__} in the addon; the log has more"
    with pytest.raises(IssuanceError, match=said):
        await issuance.issue(_SUBJECT, None)

    assert "something internal" in caplog.text
    assert [(ca, str(error)) for ca, error in told.orders] == [("fake-ca", said)]
    assert manager.backoffs.active_backoff(_SUBJECT) is not None


async def test_certificate_for_fewer_names_is_a_failure(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would never fit the order, and each start would order it again."""
    both = Subject((*_SUBJECT.names, ServerName("b.example.test")))
    manager, whole = make_manager(), issuer.obtain

    async def obtain(subject: Subject, replacing: Certificate | None) -> Certificate:
        return await whole(dataclasses.replace(subject, names=subject.names[:1]), replacing)

    monkeypatch.setattr(issuer, "obtain", obtain)
    with pytest.raises(IssuanceError, match=r"a certificate that is not for b\.example\.test"):
        await manager.obtain(both)
    with pytest.raises(BackingOff):
        await manager.obtain(both)

    assert len(issuer.orders) == 1
    assert manager.store.slot(both.id).certificate is None
