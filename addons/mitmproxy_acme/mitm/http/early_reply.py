"""Front: the replies to challenges are given before any other addon of mitmproxy sees the request.

This module knows mitmproxy's chain of addons; it must not know which challenges there are. mitmproxy's own options
(``proxyauth``, ``block_list``, ``modify_body``, …) and other scripts are addons of that chain: what one of them changed
in a reply to a challenge would keep certificates from coming, and the CA has no password. Only replies to our own
challenges are given here; a request for anything else takes its way through the chain.
"""

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy import addonmanager, connection, ctx, eventsequence, exceptions, hooks, http
from mitmproxy.flow import Flow
from mitmproxy.proxy import layer
from mitmproxy.utils import asyncio_utils

from ...core.structured_logging import fields
from .. import addon_chain
from ..tls.rejection import AlertLayer
from .challenge_reply import ChallengeResponder, is_killed

logger = logging.getLogger(__name__)


class EarlyReply:
    """The first addon of mitmproxy's chain. mitmproxy calls its hooks on the event loop."""

    name = "acme_front"

    def __init__(self, responder: Callable[[], ChallengeResponder | None]) -> None:
        self._responder = responder
        self._replies: WeakKeyDictionary[Flow, http.Response] = WeakKeyDictionary()
        self._said: set[str] = set()

    def enter(self) -> None:
        """Take the first place of the chain."""
        addon_chain.put_first(self)

    def leave(self) -> None:
        """Leave the chain; nothing where it is not there."""
        addon_chain.take_out(self)

    def client_connected(self, client: connection.Client) -> None:
        """Take the first place again, where another addon has put itself before this one."""
        if ctx.master.addons.chain[0] is not self:
            self.enter()

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Answer a validator that asks in plain HTTP at once, before mitmproxy reads any."""
        responder = self._responder()
        if responder is None or nextlayer.layer is not None:
            return
        reply = responder.reply_at_once(nextlayer.data_client())  # type: ignore[no-untyped-call]
        if reply is not None:
            nextlayer.layer = AlertLayer(nextlayer.context, reply)
            raise exceptions.AddonHalt

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        responder = self._responder()
        if responder is None or not responder.is_asked(flow):
            return None
        return self._reply(responder, flow)

    async def _reply(self, responder: ChallengeResponder, flow: http.HTTPFlow) -> None:
        reply = await responder.reply(flow)
        if reply is not None:
            self._replies[flow] = reply
            self._keep(flow, "requestheaders", before=None, now=None)

    def request(self, flow: http.HTTPFlow) -> None:
        # Not earlier: mitmproxy crashes where a request with a reply turns out to be one that it streams.
        self._keep(flow, "request", before=None, now=self._replies.get(flow))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        reply = self._replies.get(flow)
        self._keep(flow, "responseheaders", before=reply, now=reply)

    def response(self, flow: http.HTTPFlow) -> None:
        reply, responder = self._replies.get(flow), self._responder()
        if reply is not None and responder is not None and not responder.hides:
            shown = flow.copy()  # type: ignore[no-untyped-call]
            shown.response = reply.copy()
            asyncio_utils.create_task(self._show(shown), name="acme shown challenge", keep_ref=True)
        self._keep(flow, "response", before=reply, now=reply)

    def error(self, flow: http.HTTPFlow) -> None:
        if flow in self._replies:
            raise exceptions.AddonHalt

    def update(self, flows: Sequence[Flow]) -> None:
        """Keep what mitmproxy tells after each hook of a flow from the flow list too."""
        if any(flow in self._replies for flow in flows):
            raise exceptions.AddonHalt

    def _keep(
        self, flow: http.HTTPFlow, event: str, *, before: http.Response | None, now: http.Response | None
    ) -> None:
        """Keep a flow with a reply from the other addons: it had ``before`` when it came here, and is to have ``now``.

        Raises ``AddonHalt`` for such a flow, which ends the event.
        """
        if flow not in self._replies:
            return
        if (killed := is_killed(flow)) or flow.intercepted or _sent(flow.response) != _sent(before):
            self._say(" or ".join(self._suspects(event)) or "something that is no addon", "has been restored")
            self.enter()  # to be the first from the next event on
            flow.resume()  # type: ignore[no-untyped-call]
            if killed:
                flow.error, flow.live = None, True
            flow.response = now.copy() if now is not None else None
        elif before is not now:
            flow.response = now.copy() if now is not None else None
        raise exceptions.AddonHalt

    async def _show(self, shown: http.HTTPFlow) -> None:
        """Let the addons see a copy of an exchange that has ended, as it was; nothing waits for them."""
        assert shown.response is not None  # noqa: S101  # narrows: it is a copy of one with a reply
        reply = shown.response.copy()
        for event in eventsequence.iterate(shown):
            try:
                for addon in addonmanager.traverse(addon_chain.others(self)):  # type: ignore[no-untyped-call]
                    await _tell(addon, event)
                    if _sent(shown.response) != _sent(reply):
                        self._say(_name(addon), "was sent before that")
                        shown.response = reply.copy()
            except exceptions.AddonHalt:
                return
            shown.error = None
            shown.resume()  # type: ignore[no-untyped-call]  # one that is intercepted: nobody waits for it
            await ctx.master.addons.trigger_event(hooks.UpdateHook([shown]))

    def _suspects(self, event: str) -> Iterator[str]:
        """Yield the names of the addons that take an event before this one."""
        addons = ctx.master.addons.chain
        before: Iterable[object] = addons[: addons.index(self)] if self in addons else addons
        return (_name(addon) for addon in addonmanager.traverse(before) if hasattr(addon, event))  # type: ignore[no-untyped-call]

    def _say(self, who: str, outcome: str) -> None:
        """Log who changed a reply, once for each."""
        if who in self._said:
            return
        self._said.add(who)
        logger.warning(
            "the reply to an ACME challenge was changed by %s; the true one %s",
            *(who, outcome),
            extra=fields("challenge_changed", by=who),
        )


async def _tell(addon: object, event: hooks.Hook) -> None:
    """Call one addon as mitmproxy does. Raises ``AddonHalt``."""
    hook = getattr(addon, event.name, None)
    if not callable(hook):
        return
    with addonmanager.safecall():
        result = hook(*event.args())
        if inspect.isawaitable(result):
            await result


def _sent(response: http.Response | None) -> tuple[object, ...] | None:
    """Return what a client gets of a response."""
    if response is None:
        return None
    return response.status_code, response.reason, response.headers.fields, response.raw_content, response.trailers


def _name(addon: object) -> str:
    """Return what mitmproxy calls an addon: a script's is its path."""
    return str(getattr(addon, "name", type(addon).__name__.lower()))
