"""Replies to http-01 challenges before any other addon of mitmproxy sees the request.

This module knows mitmproxy's chain of addons; it must not know which challenges exist. mitmproxy's own options
(``proxyauth``, ``block_list``, ``modify_body``, …) and other scripts are addons of that chain. A reply that one of them
changes makes the validation fail, and the CA has no password for ``proxyauth``. Only requests for our own challenges
are answered here; a request for anything else goes through the whole chain.
"""

import inspect
import logging
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy import addonmanager, connection, ctx, eventsequence, exceptions, hooks, http
from mitmproxy.flow import Flow
from mitmproxy.proxy import layer
from mitmproxy.utils import asyncio_utils

from ...core.structured_logging import fields
from .. import addon_chain
from ..tls.rejection import FinalReplyLayer
from .challenge_reply import ChallengeResponder, is_killed

logger = logging.getLogger(__name__)


class ChallengeHooks:
    """The first addon of mitmproxy's chain. mitmproxy calls its hooks on the event loop."""

    name = "acme_challenges"

    def __init__(self) -> None:
        # None while no name may have a certificate.
        self.responder: ChallengeResponder | None = None
        self._replies: WeakKeyDictionary[Flow, http.Response] = WeakKeyDictionary()
        self._reported: set[str] = set()

    def install(self) -> None:
        """Take the first position of the chain."""
        addon_chain.put_first(self)

    def uninstall(self) -> None:
        addon_chain.remove(self)

    def client_connected(self, client: connection.Client) -> None:
        """Take the first position again if another addon has put itself before this one."""
        if ctx.master.addons.chain[0] is not self:
            self.install()

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Answer a validator that asks in plain HTTP at once, before mitmproxy reads any."""
        if self.responder is None or nextlayer.layer is not None:
            return
        reply = self.responder.reply_at_once(nextlayer.data_client())  # type: ignore[no-untyped-call]
        if reply is not None:
            nextlayer.layer = FinalReplyLayer(nextlayer.context, reply)
            raise exceptions.AddonHalt

    def requestheaders(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        if self.responder is None or not self.responder.is_asked(flow):
            return None
        return self._reply(self.responder, flow)

    async def _reply(self, responder: ChallengeResponder, flow: http.HTTPFlow) -> None:
        reply = await responder.reply(flow)
        if reply is not None:
            self._replies[flow] = reply
            self._protect(flow, "requestheaders", expected=None, reply=None)

    def request(self, flow: http.HTTPFlow) -> None:
        # Not earlier: mitmproxy crashes when it decides to stream a request that has a response already.
        self._protect(flow, "request", expected=None, reply=self._replies.get(flow))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        reply = self._replies.get(flow)
        self._protect(flow, "responseheaders", expected=reply, reply=reply)

    def response(self, flow: http.HTTPFlow) -> None:
        reply = self._replies.get(flow)
        if reply is not None and self.responder is not None and not self.responder.hides:
            shown = flow.copy()  # type: ignore[no-untyped-call]
            shown.response = reply.copy()
            asyncio_utils.create_task(self._show(shown), name="acme shown challenge", keep_ref=True)
        self._protect(flow, "response", expected=reply, reply=reply)

    def error(self, flow: http.HTTPFlow) -> None:
        if flow in self._replies:
            raise exceptions.AddonHalt

    def update(self, flows: Sequence[Flow]) -> None:
        """Keep the event that mitmproxy sends after each hook of a flow from the flow list too."""
        if any(flow in self._replies for flow in flows):
            raise exceptions.AddonHalt

    def _protect(
        self, flow: http.HTTPFlow, event: str, *, expected: http.Response | None, reply: http.Response | None
    ) -> None:
        """Keep the other addons from a flow that has a reply of ours, and give it the response ``reply``.

        ``expected`` is the response that it had before this event, if no other addon has changed it. Raises
        ``AddonHalt`` for such a flow, which ends the event.
        """
        if flow not in self._replies:
            return
        if (killed := is_killed(flow)) or flow.intercepted or _sent_parts(flow.response) != _sent_parts(expected):
            suspects = " or ".join(self._addons_before(event)) or "something that is no addon"
            self._report(suspects, "has been restored")
            self.install()  # to be the first from the next event on
            flow.resume()  # type: ignore[no-untyped-call]
            if killed:
                flow.error, flow.live = None, True
            flow.response = reply.copy() if reply is not None else None
        elif expected is not reply:
            flow.response = reply.copy() if reply is not None else None
        raise exceptions.AddonHalt

    async def _show(self, shown: http.HTTPFlow) -> None:
        """Call the addons with a copy of an exchange that has ended; nothing waits for them, or sends what they set."""
        assert shown.response is not None  # noqa: S101  # narrows: it is a copy of one with a reply
        reply = shown.response.copy()
        for event in eventsequence.iterate(shown):
            try:
                for addon in addonmanager.traverse(addon_chain.others(self)):  # type: ignore[no-untyped-call]
                    await _call(addon, event)
                    if _sent_parts(shown.response) != _sent_parts(reply):
                        self._report(_name(addon), "was sent before that")
                        shown.response = reply.copy()
            except exceptions.AddonHalt:
                return
            shown.error = None
            shown.resume()  # type: ignore[no-untyped-call]  # if an addon intercepts it: nothing waits for a resume
            await ctx.master.addons.trigger_event(hooks.UpdateHook([shown]))

    def _addons_before(self, event: str) -> Iterator[str]:
        """Yield the names of the addons that receive an event before this one."""
        chain = ctx.master.addons.chain
        before: Iterable[object] = chain[: chain.index(self)] if self in chain else chain
        return (_name(addon) for addon in addonmanager.traverse(before) if hasattr(addon, event))  # type: ignore[no-untyped-call]

    def _report(self, culprit: str, outcome: str) -> None:
        """Log which addon changed a reply, once for each addon."""
        if culprit in self._reported:
            return
        self._reported.add(culprit)
        logger.warning(
            "the reply to an ACME challenge was changed by %s; the true one %s",
            culprit,
            outcome,
            extra=fields("challenge_changed", by=culprit),
        )


async def _call(addon: object, event: hooks.Hook) -> None:
    """Call one addon as mitmproxy does. Raises ``AddonHalt``."""
    hook = getattr(addon, event.name, None)
    if not callable(hook):
        return
    with addonmanager.safecall():
        result = hook(*event.args())
        if inspect.isawaitable(result):
            await result


def _sent_parts(response: http.Response | None) -> tuple[object, ...] | None:
    """Return the parts of a response that are sent to the client."""
    if response is None:
        return None
    return response.status_code, response.reason, response.headers.fields, response.raw_content, response.trailers


def _name(addon: object) -> str:
    """Return what mitmproxy calls an addon; a script's name is its path."""
    return str(getattr(addon, "name", type(addon).__name__.lower()))
