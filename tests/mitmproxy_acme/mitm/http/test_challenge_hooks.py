"""The first addon of mitmproxy's chain: what other addons see of a challenge, and can do to its reply."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mitmproxy import eventsequence, exceptions, hooks, http
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.flow import Error
from mitmproxy.proxy import context, events, layer, mode_specs, server_hooks
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook
from mitmproxy.test import taddons, tflow

from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.mitm.http.challenge_hooks import ChallengeHooks
from mitmproxy_acme.mitm.http.challenge_reply import ChallengeResponder
from mitmproxy_acme.mitm.tls.rejection import FinalReplyLayer
from tests.mitmproxy_acme.conftest import MakeManager

TOKEN = "t" * 43
PROOF = Proof("http-01", TOKEN, f"{TOKEN}.thumbprint")
EVENTS = ("requestheaders", "request", "responseheaders", "response")

type Spoil = Callable[[http.HTTPFlow], None]


def asking(token: str = TOKEN, method: str = "GET") -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.request.method, flow.request.path = method, f"/.well-known/acme-challenge/{token}"
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse("reverse:http://127.0.0.1:1")
    flow.live = True
    return flow


class Recorder:
    """An addon that records what it sees of flows, and spoils them in one of the events."""

    def __init__(self, name: str, spoil: Spoil | None = None, at: str = "") -> None:
        self.name = name
        self.seen: list[tuple[str, http.HTTPFlow]] = []
        self._spoil, self._at = spoil, at
        for event in EVENTS:
            setattr(self, event, self._taking(event))

    def _taking(self, event: str) -> Spoil:
        def take(flow: http.HTTPFlow) -> None:
            self.seen.append((event, flow))
            if self._spoil is not None and event == self._at:
                self._spoil(flow)

        return take

    def update(self, flows: list[http.HTTPFlow]) -> None:
        self.seen += [("update", flow) for flow in flows]


def unavailable(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(503)


def nothing(flow: http.HTTPFlow) -> None:
    flow.response = None


def appended(flow: http.HTTPFlow) -> None:
    if flow.response is not None:
        flow.response.content = (flow.response.content or b"") + b"<!-- seen -->"


def headed(flow: http.HTTPFlow) -> None:
    if flow.response is not None:
        flow.response.headers["Content-Encoding"] = "gzip"


def killed(flow: http.HTTPFlow) -> None:
    flow.kill()  # type: ignore[no-untyped-call]


def intercepted(flow: http.HTTPFlow) -> None:
    flow.intercept()  # type: ignore[no-untyped-call]


SPOILS: list[Spoil] = [unavailable, nothing, appended, headed, killed, intercepted]


class Chain:
    """A chain of addons with ours in it, and the responder of a manager that has published PROOF."""

    def __init__(self, make_manager: MakeManager, tctx: Any, **options: Any) -> None:
        manager = make_manager(**options)
        manager.store.put_proof(PROOF)
        self.responder = ChallengeResponder(manager, ChallengeLookup(manager), Instrumentation())
        self.hooks = ChallengeHooks()
        self.hooks.responder = self.responder
        self.addons = tctx.master.addons

    def start(self, *others: Recorder) -> None:
        self.addons.add(*others)
        self.hooks.install()

    async def run(self, flow: http.HTTPFlow) -> http.HTTPFlow:
        """Send mitmproxy's events of an exchange, up to where a reply is given."""
        for event in eventsequence.iterate(flow):
            await self.addons.handle_lifecycle(event)
        return flow


@pytest.fixture
async def tctx() -> AsyncIterator[Any]:
    with taddons.context() as context:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        yield context


def is_true(flow: http.HTTPFlow) -> bool:
    reply = flow.response
    return reply is not None and (reply.status_code, reply.content) == (200, PROOF.value.encode())


async def test_first_position_is_taken_again_with_each_client(make_manager: MakeManager, tctx: Any) -> None:
    """An addon that puts itself first sees no challenge of clients that come later."""
    chain, rival = Chain(make_manager, tctx), Recorder("rival")
    chain.start()
    chain.addons.chain = [rival, *chain.addons.chain]
    await chain.addons.handle_lifecycle(server_hooks.ClientConnectedHook(tflow.tclient_conn()))
    assert chain.addons.chain[0] is chain.hooks
    assert is_true(await chain.run(asking()))
    assert rival.seen == []


@pytest.mark.parametrize(("token", "answered"), [(TOKEN, True), ("u" * 43, False)], ids=["ours", "invented"])
async def test_plain_request_for_a_challenge_is_answered_before_it_is_read(
    make_manager: MakeManager, tctx: Any, token: str, answered: bool
) -> None:
    """No other addon gets next_layer; for any other request mitmproxy goes on as usual."""
    chain, asked = Chain(make_manager, tctx), list[object]()
    other = Recorder("other")
    other.next_layer = asked.append  # type: ignore[attr-defined]
    chain.start(other)
    client = tflow.tclient_conn()
    next_layer = layer.NextLayer(context.Context(client, tctx.options))
    request = f"GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.example.test\r\n\r\n"
    next_layer.events = [events.DataReceived(client, request.encode())]
    await chain.addons.handle_lifecycle(layer.NextLayerHook(next_layer))
    assert isinstance(next_layer.layer, FinalReplyLayer) is answered
    assert bool(asked) is not answered


@pytest.mark.parametrize("at", EVENTS)
@pytest.mark.parametrize("spoil", SPOILS)
async def test_no_other_addon_sees_a_challenge(make_manager: MakeManager, tctx: Any, spoil: Spoil, at: str) -> None:
    """Whenever it would spoil the reply; of other requests it sees everything."""
    chain, other = Chain(make_manager, tctx), Recorder("other", spoil, at)
    chain.start(other)
    assert is_true(await chain.run(asking()))
    assert other.seen == []
    await chain.run(asking("u" * 43))
    assert [event for event, _ in other.seen if event != "update"][:2] == ["requestheaders", "request"]


@pytest.mark.parametrize("at", EVENTS)
@pytest.mark.parametrize("spoil", SPOILS)
async def test_changed_reply_is_restored_and_logged(
    make_manager: MakeManager, tctx: Any, caplog: pytest.LogCaptureFixture, spoil: Spoil, at: str
) -> None:
    """An addon that has put itself before ours is named once, and is behind ours from then on."""
    chain, rival = Chain(make_manager, tctx), Recorder("rival.py", spoil, at)
    chain.start()
    for _ in range(2):
        chain.addons.chain = [rival, *(addon for addon in chain.addons.chain if addon is not rival)]
        flow = await chain.run(asking())
        assert is_true(flow)
        assert flow.error is None
        assert flow.live
        assert not flow.intercepted
    said = [record.getMessage() for record in caplog.records if "was changed" in record.getMessage()]
    harmless = at.startswith("request") and spoil in (nothing, appended, headed)  # there is no reply yet
    assert said == ([] if harmless else [said[0]])
    assert all("changed by rival.py; the true one has been restored" in line for line in said)


@pytest.mark.parametrize("at", EVENTS)
@pytest.mark.parametrize("spoil", SPOILS)
async def test_shown_challenge_is_a_copy(
    make_manager: MakeManager, tctx: Any, caplog: pytest.LogCaptureFixture, spoil: Spoil, at: str
) -> None:
    """With acme_hide_challenges=false the others see a copy, and what they change is not sent."""
    chain, other = Chain(make_manager, tctx, acme_hide_challenges=False), Recorder("other.py", spoil, at)
    flow_list = Recorder("view")
    chain.start(other, flow_list)
    sent = await chain.run(asking())
    assert is_true(sent)
    await _settled()
    assert [event for event, _ in flow_list.seen if event != "update"] == list(EVENTS)
    assert not [flow for _, flow in flow_list.seen if flow is sent]
    (shown,) = {flow.id: flow for _, flow in flow_list.seen}.values()
    assert is_true(shown)
    assert not shown.intercepted
    assert shown.comment == "ACME http-01 challenge"
    said = [record.getMessage() for record in caplog.records if "was changed" in record.getMessage()]
    assert len(said) == (spoil in (unavailable, nothing, appended, headed))
    assert all("changed by other.py; the true one was sent before that" in line for line in said)


async def _settled() -> None:
    """Return when the copy has been shown."""
    while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith("acme shown challenge")]:
        await asyncio.wait(tasks)


async def test_proxyauth_applies_to_all_but_known_challenges(make_manager: MakeManager, tctx: Any) -> None:
    """A challenge of ours is answered; any other request, also another method, is not let through."""
    chain = Chain(make_manager, tctx)
    chain.addons.add(ProxyAuth())
    tctx.options.update(proxyauth="user:password")
    chain.start()
    assert is_true(await chain.run(asking()))
    for flow in (asking("u" * 43), asking(method="POST"), asking(method="CONNECT"), asking(f"{TOKEN}/more")):
        await chain.run(flow)
        chain.responder.decline(flow, whole=True)
        assert flow.response is not None
        assert flow.response.status_code == 401


async def test_no_other_addon_sees_the_end_of_a_challenge(make_manager: MakeManager, tctx: Any) -> None:
    """A validator that disconnects leaves no flow behind, and the reply is forgotten when mitmproxy drops the flow."""
    chain, other = Chain(make_manager, tctx), Recorder("other")
    chain.start(other)
    flow = await chain.run(asking())
    flow.error = Error("client disconnected")
    await chain.addons.handle_lifecycle(HttpErrorHook(flow))
    assert other.seen == []
    del flow
    gc.collect()
    assert len(chain.hooks._replies) == 0


async def test_uninstall_restores_the_chain(make_manager: MakeManager, tctx: Any) -> None:
    """Installing twice adds the addon once, and never changes the list along which mitmproxy may be walking."""
    chain = Chain(make_manager, tctx)
    before = chain.addons.chain
    chain.hooks.install()
    chain.hooks.install()
    assert chain.addons.chain == [chain.hooks, *before]
    chain.hooks.uninstall()
    chain.hooks.uninstall()
    assert chain.addons.chain == before
    assert chain.hooks not in before


async def test_addon_that_fails_or_halts_at_a_copy(
    make_manager: MakeManager, tctx: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The addons get a copy as mitmproxy would send it: a failure is logged, and a halt ends the event."""

    def fail(_: http.HTTPFlow) -> None:
        raise ValueError("a failure of its own")

    def halt(_: http.HTTPFlow) -> None:
        raise exceptions.AddonHalt

    chain = Chain(make_manager, tctx, acme_hide_challenges=False)
    flow_list = Recorder("view")
    chain.start(Recorder("failing", fail, "request"), Recorder("halting", halt, "response"), flow_list)
    assert is_true(await chain.run(asking()))
    await _settled()
    assert [event for event, _ in flow_list.seen if event in EVENTS] == ["requestheaders", "request", "responseheaders"]
    assert "a failure of its own" in caplog.text


def test_hooks_have_mitmproxys_names() -> None:
    """A hook that mitmproxy renames would never be called."""
    assert {"update", "error", *EVENTS} <= hooks.all_hooks.keys()
