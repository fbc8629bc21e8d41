"""mitmproxy's hooks for traffic: each hands its event to the part that decides, and to no other."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection, exceptions
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import mode_specs
from mitmproxy.test import taddons, tflow

from mitmproxy_acme.mitm import flow_marks, lazy_upstream, traffic_hooks
from mitmproxy_acme.mitm.dns.message_guard import DnsGuard
from mitmproxy_acme.mitm.traffic_hooks import TrafficHooks


class Recorder:
    """Stands in for a part of the runtime, and keeps what it is told."""

    def __init__(self, told: list[tuple[Any, ...]], part: str) -> None:
        self._told, self._part = told, part

    def __getattr__(self, call: str) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            self._told.append((f"{self._part}.{call}", *args, *kwargs.values()))
            return _nothing() if call in ("start_tls", "start_quic", "respond") else None

        return note


async def _nothing() -> None:
    """Be awaited."""


class Runtime:
    """As much of one as the hooks ask."""

    def __init__(self, **options: Any) -> None:
        self.told = list[tuple[Any, ...]]()
        self.manager = SimpleNamespace(config=SimpleNamespace(**({"lazy": False, "upstreams": ()} | options)))
        for part in ("handshakes", "responder", "nameserver"):
            setattr(self, part, Recorder(self.told, part))
        self.router = object()
        self.refused = False
        self.barrier = SimpleNamespace(refuses=lambda server, mode: self.refused)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime()
    monkeypatch.setattr(traffic_hooks, "prepare_tls", Recorder(made.told, "router").prepare)
    monkeypatch.setattr(lazy_upstream, "connect_lazily", Recorder(made.told, "lazy").connect)
    return made


@pytest.fixture
def hooks(runtime: Runtime) -> TrafficHooks:
    made = TrafficHooks()
    made.runtime = runtime  # type: ignore[assignment]
    return made


CLIENT = connection.Client(peername=("192.0.2.1", 1), sockname=("127.0.0.1", 443), state=ConnectionState.OPEN)
DATA: Any = SimpleNamespace(context=SimpleNamespace(client=CLIENT), client=CLIENT, server=object())


@pytest.mark.parametrize(
    ("hook", "event", "told"),
    [
        ("client_connected", CLIENT, [("handshakes.connected", CLIENT)]),
        ("client_disconnected", CLIENT, [("handshakes.done", CLIENT)]),
        ("tls_clienthello", DATA, [("handshakes.read_hello", DATA)]),
        ("tls_start_client", DATA, [("handshakes.start_tls", DATA)]),
        ("quic_start_client", DATA, [("handshakes.start_quic", DATA)]),
        ("tls_established_client", DATA, [("handshakes.done", CLIENT)]),
        ("requestheaders", flow := tflow.tflow(), [("responder.decline", flow, False)]),
        ("request", flow, [("responder.decline", flow, True)]),
        ("dns_request", question := tflow.tdnsflow(), [("nameserver.respond", question)]),
        ("dns_response", question, []),
    ],
)
async def test_event_is_handed_on(
    hooks: TrafficHooks, runtime: Runtime, hook: str, event: Any, told: list[tuple[Any, ...]]
) -> None:
    """To one part; to none while no name may have a certificate."""
    if (handled := getattr(hooks, hook)(event)) is not None:
        await handled
    assert runtime.told == told
    hooks.runtime = None
    if (handled := getattr(hooks, hook)(event)) is not None:
        await handled
    assert runtime.told == told


def test_connection_to_an_upstream_is_prepared(hooks: TrafficHooks, runtime: Runtime) -> None:
    hooks.tls_start_server(DATA)
    assert runtime.told == [("router.prepare", runtime.router, DATA)]
    hooks.runtime = None
    hooks.tls_start_server(DATA)
    assert len(runtime.told) == 1


@pytest.mark.parametrize(("options", "lazily"), [({"lazy": True}, True), ({"upstreams": ("a",)}, True), ({}, False)])
def test_upstream_waits_for_a_request_where_the_options_say_so(
    hooks: TrafficHooks, runtime: Runtime, options: dict[str, Any], lazily: bool
) -> None:
    """With ``acme_upstreams`` always: only a request tells which one it is."""
    runtime.manager.config.__dict__.update(options)
    hooks.client_connected(CLIENT)
    assert (("lazy.connect", CLIENT) in runtime.told) is lazily


@pytest.fixture
def handler() -> Iterator[SimpleNamespace]:
    """mitmproxy's handler of ``CLIENT``, whose server connection notes that it was aborted."""
    layer = SimpleNamespace(context=SimpleNamespace(client=CLIENT, options=None, layers=[], server=None))
    aborted = list[bool]()
    writer = SimpleNamespace(transport=SimpleNamespace(abort=lambda: aborted.append(True)))
    made = SimpleNamespace(layer=layer, transports={DATA.server: SimpleNamespace(writer=writer)}, aborted=aborted)
    proxyserver = Proxyserver()  # type: ignore[no-untyped-call]
    with taddons.context(proxyserver):  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        proxyserver.connections[CLIENT.id] = made  # type: ignore[assignment]
        yield made


@pytest.mark.parametrize(
    ("mode", "guarded"),
    [("dns@53", True), ("reverse:dns://9.9.9.9@53", True), ("reverse:http://up.test", False), ("regular", False)],
)
def test_dns_clients_are_guarded(
    hooks: TrafficHooks, runtime: Runtime, handler: SimpleNamespace, mode: str, guarded: bool
) -> None:
    """In the modes that speak DNS, where this proxy is a nameserver."""
    CLIENT.proxy_mode = mode_specs.ProxyMode.parse(mode)
    runtime.nameserver = None  # type: ignore[attr-defined]
    hooks.client_connected(CLIENT)
    assert not isinstance(handler.layer, DnsGuard)
    runtime.nameserver = object()  # type: ignore[attr-defined]
    hooks.client_connected(CLIENT)
    assert isinstance(handler.layer, DnsGuard) is guarded


def test_connection_to_the_admin_api_is_aborted(
    hooks: TrafficHooks, runtime: Runtime, handler: SimpleNamespace
) -> None:
    """And no other; that of a replayed flow has no handler, and is the operator's."""
    hooks.server_connected(DATA)
    assert handler.aborted == []
    runtime.refused = True
    hooks.server_connected(DATA)
    assert handler.aborted == [True]
    other = connection.Client(peername=("192.0.2.1", 2), sockname=("127.0.0.1", 443))
    hooks.server_connected(SimpleNamespace(client=other, server=DATA.server))  # type: ignore[arg-type]
    hooks.runtime = None
    hooks.server_connected(DATA)
    assert handler.aborted == [True]


async def test_hidden_challenge_is_kept_from_the_addons_behind(hooks: TrafficHooks) -> None:
    flow = tflow.tdnsflow()
    flow_marks.mark(flow, "a challenge", hide=True)
    with pytest.raises(exceptions.AddonHalt):
        await hooks.dns_request(flow)
    with pytest.raises(exceptions.AddonHalt):
        hooks.dns_response(flow)


async def test_without_a_nameserver_no_question_is_answered(hooks: TrafficHooks, runtime: Runtime) -> None:
    runtime.nameserver = None  # type: ignore[attr-defined]
    await hooks.dns_request(tflow.tdnsflow())
    assert runtime.told == []
