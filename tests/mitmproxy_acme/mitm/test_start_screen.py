"""What ``serve`` prints once its names are served; end_to_end runs it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from mitmproxy.test import taddons

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.errors import ChallengeFailed, IssuerUnavailable
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm import start_screen
from mitmproxy_acme.mitm.launch import ServedSite
from mitmproxy_acme.mitm.start_screen import StartScreen
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, FakeIssuer, make_certificate

_NAME = ServerName("a.example.test")
_MANAGED = ServedSite("https://a.example.test/", "http://127.0.0.1:8000", _NAME, managed=True)
_ON_DEMAND = ServedSite("https://*.example.test/", "http://127.0.0.1:8001", "*.example.test", managed=False)


@dataclass
class Runtime:
    manager: Manager
    inventory: Inventory


class Screen:
    """A start screen, and what it has printed."""

    def __init__(self, runtime: Runtime | None, *sites: ServedSite) -> None:
        self.printed = list[str]()
        self._printed = asyncio.Event()
        self.addon = StartScreen(lambda: runtime, sites, self._print)  # type: ignore[arg-type, return-value]

    def _print(self, text: str) -> None:
        self.printed.append(text)
        self._printed.set()

    async def comes(self) -> str:
        """Return it once it is there."""
        self.addon.running()
        await asyncio.wait_for(self._printed.wait(), 10)
        return self.printed[0]


@pytest.fixture(autouse=True)
async def _mitmproxy() -> AsyncIterator[None]:
    with taddons.context():  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        yield


def runtime_of(make_manager: MakeManager, **options: Any) -> Runtime:
    manager = make_manager(acme_certificates=(_NAME,), **options)
    return Runtime(manager, Inventory(manager))


def store(memory: Memory, **how: Any) -> None:
    view = Store(memory, UNSEALED)
    assert view.replace(view.slot(_NAME), make_certificate([_NAME], **how))


async def test_each_site_has_its_url_upstream_and_certificate(make_manager: MakeManager, memory: Memory) -> None:
    """And where the status page is."""
    store(memory)
    text = await Screen(runtime_of(make_manager), _MANAGED, _ON_DEMAND).comes()
    assert text.splitlines() == [
        "",
        "mitmproxy-acme serves these sites. Ctrl-C ends it.",
        "",
        "  https://a.example.test/",
        "    upstream     http://127.0.0.1:8000",
        "    certificate  valid until 2027-04-15 08:00 UTC, by Fake Issuer; renewal about 2027-03-16 08:00 UTC",
        "  https://*.example.test/",
        "    upstream     http://127.0.0.1:8001",
        "    certificate  one for each name, obtained when a client first asks for it",
        "",
        "  status page    none; --status 127.0.0.1:8008 opens it",
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"acme_admin_listen": "127.0.0.1:8008"}, "  status page    http://127.0.0.1:8008/"),
        ({"acme_admin_listen": "unix:/run/admin.sock"}, "  status page    unix:/run/admin.sock"),
        (
            {"acme_ca": ("letsencrypt-staging",)},
            "  CA             letsencrypt-staging, for tests: clients do not trust its certificates",
        ),
    ],
)
async def test_what_else_is_there_is_said(make_manager: MakeManager, options: dict[str, Any], line: str) -> None:
    text = await Screen(runtime_of(make_manager, **options)).comes()
    assert line in text.splitlines()


async def test_page_of_mitmweb_is_named(make_manager: MakeManager) -> None:
    with taddons.context() as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        tctx.master.web_url = "http://127.0.0.1:8081/?token=x"
        assert "  traffic        http://127.0.0.1:8081/?token=x" in await Screen(runtime_of(make_manager)).comes()


@pytest.mark.parametrize("outcome", ["obtained", "failed"])
async def test_screen_waits_for_what_is_being_obtained(
    make_manager: MakeManager, issuer: FakeIssuer, outcome: str
) -> None:
    """It comes with the event that says what became of it."""
    runtime = runtime_of(make_manager)
    screen = Screen(runtime, _MANAGED)
    coming = asyncio.create_task(screen.comes())
    for _ in range(20):
        await asyncio.sleep(0.001)  # time for more than the reading takes
    assert screen.printed == []
    issuer.error = ChallengeFailed("no\nsuch host") if outcome == "failed" else None
    subject = runtime.manager.config.managed[0]
    event: Any = None
    if outcome == "failed":
        with pytest.raises(ChallengeFailed):
            await runtime.manager.obtain(subject)
        screen.addon.acme_certificate_failed(event)
        assert "certificate  none: no such host; next attempt at 2027-01-15 08:01 UTC" in await coming
    else:
        await runtime.manager.obtain(subject)
        screen.addon.acme_certificate_obtained(event)
        assert "certificate  valid until 2027-04-15 08:00 UTC, by Fake Issuer" in await coming


async def test_screen_comes_although_a_name_has_none(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while: the person wants to know that nothing is stuck."""
    monkeypatch.setattr(start_screen, "_WITHIN", 0.01)
    assert (
        "certificate  still being obtained; the log says more"
        in await Screen(runtime_of(make_manager), _MANAGED).comes()
    )


async def test_certificate_that_the_options_no_longer_want_is_shown_with_the_failure(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served meanwhile; without a failure the screen waits for its successor."""
    store(memory, ca="https://other.test/directory")
    runtime = runtime_of(make_manager)
    monkeypatch.setattr(start_screen, "_WITHIN", 0.01)
    assert "still being obtained" in await Screen(runtime, _MANAGED).comes()
    issuer.error = IssuerUnavailable("no connection")
    with pytest.raises(IssuerUnavailable):
        await runtime.manager.renew(runtime.manager.config.managed[0])
    text = await Screen(runtime, _MANAGED).comes()
    assert "valid until 2027-04-15 08:00 UTC, by Fake Issuer; renewal about" in text
    assert "; a new one failed: no connection; next attempt at 2027-01-15 08:0" in text


async def test_expired_certificate_is_none(
    make_manager: MakeManager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(memory, lifetime=DAY)
    clock.advance(DAY)
    monkeypatch.setattr(start_screen, "_WITHIN", 0.01)
    assert "valid until" not in await Screen(runtime_of(make_manager), _MANAGED).comes()


async def test_storage_that_is_down_is_said_to_be(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the disk is gone")

    runtime = runtime_of(make_manager)
    for call in ("get", "keys"):
        monkeypatch.setattr(memory, call, fail)
    assert "certificate  not known: the disk is gone" in await Screen(runtime, _MANAGED).comes()


async def test_nothing_is_printed_where_nothing_runs() -> None:
    screen = Screen(None, _MANAGED)
    await screen.addon._show()
    assert screen.printed == []
