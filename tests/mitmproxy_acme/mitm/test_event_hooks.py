"""The hooks for other addons: which addon receives what, and what one can do to the others."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.test import taddons

from mitmproxy_acme.core.events import (
    CertificateExpiring,
    CertificateFailed,
    CertificateObtained,
    CertificateRemoved,
    ChangedElsewhere,
    Event,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.mitm.event_hooks import tell_addons
from tests.mitmproxy_acme.fakes import make_certificate

NAME = ServerName("a.example.test")
SUBJECT = Subject((NAME,))
CERTIFICATE = make_certificate([NAME])
EVENTS: dict[str, Event] = {
    "acme_certificate_obtained": CertificateObtained(SUBJECT, CERTIFICATE, "ca", 1.0, renewal=False, node="n"),
    "acme_certificate_failed": CertificateFailed(SUBJECT, "ca", "dns", "no such name", 1, 60.0, node="n"),
    "acme_certificate_expiring": CertificateExpiring(SUBJECT, CERTIFICATE, "no such name", "n"),
    "acme_certificate_removed": CertificateRemoved(NAME, "superseded", "n"),
}


class Receiver:
    """Receives every hook, and calls what it was given."""

    def __init__(self, name: str, then: Callable[[Event], Any] = lambda event: None) -> None:
        self.name = name
        self.received: list[tuple[str, Event]] = []
        self._then = then

    def __getattr__(self, hook: str) -> Any:
        if hook not in EVENTS:
            raise AttributeError(hook)
        return partial(self._receive, hook)

    def _receive(self, hook: str, event: Event) -> Any:
        self.received.append((hook, event))
        return self._then(event)


class Scripts:
    """All scripts are one addon to mitmproxy: this one contains them."""

    def __init__(self, *addons: Receiver) -> None:
        self.addons = addons


@pytest.fixture
def chain() -> Iterator[Callable[..., None]]:
    """Put addons into a mitmproxy that does not run."""
    with taddons.context() as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        yield lambda *addons: tctx.master.addons.add(*addons)


@pytest.mark.parametrize("hook", EVENTS)
async def test_each_event_has_its_hook(chain: Callable[..., None], hook: str) -> None:
    """An addon receives the event by the method with its name, and no other argument."""
    receiver = Receiver("one")
    chain(receiver)
    tell_addons(EVENTS[hook])
    await _told()
    assert receiver.received == [(hook, EVENTS[hook])]


async def test_what_other_nodes_change_has_no_hook(chain: Callable[..., None]) -> None:
    """An event that is none of the four reaches no addon."""
    receiver = Receiver("one")
    chain(receiver)
    tell_addons(ChangedElsewhere(frozenset({NAME})))
    await _told()
    assert receiver.received == []


async def test_async_addon_is_awaited_before_the_next(chain: Callable[..., None]) -> None:
    """A coroutine runs to its end, as in mitmproxy's own hooks."""
    order: list[str] = []

    async def wait(event: Event) -> None:
        await asyncio.sleep(0)
        order.append("first")

    chain(Receiver("one", wait), Receiver("two", lambda event: order.append("second")))
    tell_addons(EVENTS["acme_certificate_removed"])
    await _told()
    assert order == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError("boom"), exceptions.CommandError("boom")])
async def test_addon_that_fails_stops_no_other(
    chain: Callable[..., None], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Its exception is logged; other scripts, which mitmproxy counts as the same addon, are called."""

    def fail(event: Event) -> None:
        raise error

    receiver = Receiver("two")
    chain(Scripts(Receiver("one", fail), receiver))
    tell_addons(EVENTS["acme_certificate_obtained"])
    await _told()
    assert [hook for hook, _ in receiver.received] == ["acme_certificate_obtained"]
    assert "an addon failed at acme_certificate_obtained" in caplog.text


async def test_slow_addon_does_not_delay_the_next_event(chain: Callable[..., None]) -> None:
    """While an addon waits for ever at one event, the next event is delivered."""
    receiver = Receiver("one", lambda event: asyncio.Event().wait())
    chain(receiver)
    tell_addons(EVENTS["acme_certificate_failed"])
    tell_addons(EVENTS["acme_certificate_removed"])
    await _told()
    assert [hook for hook, _ in receiver.received] == ["acme_certificate_failed", "acme_certificate_removed"]
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def _told() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
