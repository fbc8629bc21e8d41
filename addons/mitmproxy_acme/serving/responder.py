"""Responder: answers ``/.well-known/acme-challenge/`` before any upstream is asked (RFC 8555 section 8.3).

This module knows mitmproxy's HTTP flows; it must not know who ordered. The token alone decides: the Host header is
the upstream's by the time that a hook sees it.
"""

import asyncio
import logging
import re

from mitmproxy import http
from mitmproxy.proxy import mode_specs

from acme_storage import StorageError

from ..flights import Flights
from ..manager import Manager
from ..measures import Measures
from ..recent import Recent

logger = logging.getLogger(__name__)

_PREFIX = "/.well-known/acme-challenge/"
# At least 128 bits of base64url (RFC 8555 section 8.3): anything else was never a token, and costs nothing.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")
_MARKER = ":closed_lock_with_key:"  # one of mitmproxy.utils.emoji
_HIDDEN = "acme_hidden"
# Strangers may invent tokens: so many are looked up at once, so many may wait, and a wrong one is remembered. CAs ask
# from several places at once, and for the names of all nodes (90 requests for 30 names, seen).
_LOOKUPS, _WAITING = 4, 1_000
_UNKNOWN_MEMORY, _UNKNOWN = 10.0, 4_096


class Responder:
    """Answers challenges for one manager, whichever node ordered. Use it from the event loop."""

    def __init__(self, manager: Manager, measures: Measures) -> None:
        self._manager = manager
        self._measures = measures
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._looks: Flights[str, str | None] = Flights("challenge")
        self._unknown: Recent[str, float] = Recent(_UNKNOWN)

    async def respond(self, flow: http.HTTPFlow) -> None:
        """Give the flow a response where it is a challenge; leave it alone otherwise.

        A token that nobody waits for gets 404 in reverse mode, or goes to the upstream with
        ``acme_challenge_passthrough``; in the other modes it is some other server's.
        """
        path = flow.request.path.partition("?")[0]
        if not path.startswith(_PREFIX) or flow.response is not None:
            return
        key_authorization = await self._key_authorization(path.removeprefix(_PREFIX))
        self._measures.challenge(known=key_authorization is not None)
        if key_authorization is not None and flow.request.method in ("GET", "HEAD"):
            flow.response = _reply(200, key_authorization)
            _mark(flow, "ACME http-01 challenge")
            if self._manager.config.hide_challenges:
                flow.metadata[_HIDDEN] = True
        elif self._is_ours(flow):
            flow.response = _reply(404, "Not found\n")
            _mark(flow, "ACME http-01 challenge with a token that nobody waits for")

    def _is_ours(self, flow: http.HTTPFlow) -> bool:
        reverse = isinstance(flow.client_conn.proxy_mode, mode_specs.ReverseMode)
        return reverse and not self._manager.config.challenge_passthrough

    async def _key_authorization(self, token: str) -> str | None:
        here = self._manager.store.published_here(token)
        if here is not None or not _TOKEN.fullmatch(token) or self._is_known_unknown(token):
            return here
        if len(self._looks) >= _WAITING:
            return None
        try:
            return await self._looks.join(token, lambda: self._look_up(token))
        except StorageError as error:
            logger.warning("a challenge cannot be looked up: %s", error)
            return None

    async def _look_up(self, token: str) -> str | None:
        async with self._lookups:
            found = await self._manager.threads.storage(self._manager.store.key_authorization, token)
        if found is None:
            self._unknown.put(token, self._manager.now() + _UNKNOWN_MEMORY)
        return found

    def _is_known_unknown(self, token: str) -> bool:
        until = self._unknown.get(token)
        return until is not None and self._manager.now() < until


def is_hidden(flow: http.HTTPFlow) -> bool:
    """Say whether ``respond`` answered a challenge that ``acme_hide_challenges`` keeps from the flow list."""
    return bool(flow.metadata.get(_HIDDEN))


def _mark(flow: http.HTTPFlow, comment: str) -> None:
    flow.comment, flow.marked = comment, _MARKER


def _reply(status: int, text: str) -> http.Response:
    headers = {"Content-Type": "text/plain; charset=us-ascii", "Cache-Control": "no-store"}
    return http.Response.make(status, text.encode(), headers)
