"""Responder: answers ``/.well-known/acme-challenge/`` before any upstream is asked (RFC 8555 section 8.3).

This module knows mitmproxy's HTTP flows; it must not know who ordered. The token alone decides: the Host header is
the upstream's by the time that a hook sees it.
"""

import re

from mitmproxy import http
from mitmproxy.proxy import mode_specs

from ..manager import Manager
from ..measures import Measures
from .marks import mark
from .proofs import Proofs

_PREFIX = "/.well-known/acme-challenge/"
# At least 128 bits of base64url (RFC 8555 section 8.3): anything else was never a token, and costs nothing.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")


class Responder:
    """Answers challenges for one manager, whichever node ordered. Use it from the event loop."""

    def __init__(self, manager: Manager, proofs: Proofs, measures: Measures) -> None:
        self._manager = manager
        self._proofs = proofs
        self._measures = measures

    async def respond(self, flow: http.HTTPFlow) -> None:
        """Give the flow a response where it is a challenge; leave it alone otherwise.

        A token that nobody waits for gets 404 in reverse mode, or goes to the upstream with
        ``acme_challenge_passthrough``; in the other modes it is some other server's.
        """
        path = flow.request.path.partition("?")[0]
        if not path.startswith(_PREFIX) or flow.response is not None:
            return
        token = path.removeprefix(_PREFIX)
        key_authorization = await self._proofs.find("http-01", token) if _TOKEN.fullmatch(token) else None
        self._measures.challenge(known=key_authorization is not None)
        if key_authorization is not None and flow.request.method in ("GET", "HEAD"):
            flow.response = _reply(200, key_authorization)
            mark(flow, "ACME http-01 challenge", hide=self._manager.config.hide_challenges)
        elif self._is_ours(flow):
            flow.response = _reply(404, "Not found\n")
            mark(flow, "ACME http-01 challenge with a token that nobody waits for")

    def _is_ours(self, flow: http.HTTPFlow) -> bool:
        reverse = isinstance(flow.client_conn.proxy_mode, mode_specs.ReverseMode)
        return reverse and not self._manager.config.challenge_passthrough


def _reply(status: int, text: str) -> http.Response:
    headers = {"Content-Type": "text/plain; charset=us-ascii", "Cache-Control": "no-store"}
    return http.Response.make(status, text.encode(), headers)
