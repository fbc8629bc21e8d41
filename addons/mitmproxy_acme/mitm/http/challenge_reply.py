"""Responder: what a request for ``/.well-known/acme-challenge/`` is answered (RFC 8555 section 8.3).

This module knows mitmproxy's HTTP flows; it must not know who ordered. The token alone decides: the Host header is
the upstream's by the time that a hook sees it.
"""

import re

from mitmproxy import ctx, http
from mitmproxy.flow import Error
from mitmproxy.proxy import mode_specs

from ...core.instrumentation import Instrumentation
from ...lifecycle.manager import Manager
from ..challenge_lookup import ChallengeLookup
from ..flow_marks import mark

_HTTP = "http-01"
_PREFIX = "/.well-known/acme-challenge/"
# At least 128 bits of base64url (RFC 8555 section 8.3): anything else was never a token, and costs nothing.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")
# What a validator sends, whole; anything that differs is read by mitmproxy.
_PLAIN = b"GET " + _PREFIX.encode()
_PLAIN_REQUEST = re.compile(rb"([A-Za-z0-9_-]{22,128}) HTTP/1\.[01]\r\n(?:[\x20-\x7e\t]+\r\n)+\r\n")
_LONGEST_REQUEST = 2_048
_HEADERS = {"Content-Type": "text/plain; charset=us-ascii", "Cache-Control": "no-store"}


class ChallengeResponder:
    """Answers challenges for one manager, whichever node ordered. Use it from the event loop."""

    def __init__(self, manager: Manager, proofs: ChallengeLookup, measures: Instrumentation) -> None:
        self._manager = manager
        self._proofs = proofs
        self._measures = measures

    @property
    def hides(self) -> bool:
        """Whether challenges that are answered are kept from the flow list."""
        return self._manager.config.hide_challenges

    def reply_at_once(self, received: bytes) -> bytes | None:
        """Return the whole reply to the first bytes of a connection, which is closed then; None for anything else.

        Only a challenge of this node's own that no one is to see is answered so: no storage, no wait. Each name has
        several such requests, and what mitmproxy makes of each (a flow, eight hooks for forty addons) was a sixth of
        the CPU of an order (measured).
        """
        if not (self.hides and received.startswith(_PLAIN) and len(received) <= _LONGEST_REQUEST):
            return None
        request = _PLAIN_REQUEST.fullmatch(received, len(_PLAIN))
        key_authorization = self._proofs.here(_HTTP, request[1].decode()) if request else None
        if key_authorization is None:
            return None
        self._measures.challenge(known=True)
        headers = _HEADERS | {"Connection": "close", "Content-Length": str(len(key_authorization))}
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), "", key_authorization]
        return "\r\n".join(lines).encode("ascii")

    def is_asked(self, flow: http.HTTPFlow) -> bool:
        """Say whether a request is for a challenge, of whatever server; one that mitmproxy finds invalid is not."""
        return flow.request.path.startswith(_PREFIX) and (flow.error is None or is_killed(flow))

    async def reply(self, flow: http.HTTPFlow) -> http.Response | None:
        """Return the reply to a challenge that waits for validation; None for any other request.

        ``flow`` is one for which ``is_asked`` is true.
        """
        token = flow.request.path.partition("?")[0].removeprefix(_PREFIX)
        key_authorization = await self._proofs.find(_HTTP, token) if _TOKEN.fullmatch(token) else None
        self._measures.challenge(known=key_authorization is not None)
        # A validator sends no body, and mitmproxy cannot give a reply of ours to a request that it streams.
        if key_authorization is None or flow.request.method not in ("GET", "HEAD") or _is_streamed(flow.request):
            return None
        mark(flow, "ACME http-01 challenge")
        return _response(200, key_authorization, method=flow.request.method)

    def decline(self, flow: http.HTTPFlow, *, whole: bool) -> None:
        """Answer 404 to a challenge that nobody waits for, in reverse mode; leave the flow alone otherwise.

        With ``acme_challenge_passthrough`` it goes to the upstream; in the other modes it is some other server's.
        ``whole`` says that the body has been read: where one may come that mitmproxy streams, nothing is done before.
        """
        settled = flow.response is not None or flow.error is not None  # by another addon
        if settled or not self.is_asked(flow) or not self._is_ours(flow):
            return
        if _is_streamed(flow.request):
            flow.kill()  # type: ignore[no-untyped-call]
            return
        if not whole and _is_streamed_later(flow.request):
            return
        flow.response = _response(404, "Not found\n", method=flow.request.method)
        mark(flow, "ACME http-01 challenge with a token that nobody waits for")

    def _is_ours(self, flow: http.HTTPFlow) -> bool:
        reverse = isinstance(flow.client_conn.proxy_mode, mode_specs.ReverseMode)
        return reverse and not self._manager.config.challenge_passthrough


def is_killed(flow: http.HTTPFlow) -> bool:
    """Say whether an addon wants the connection of a flow to be closed."""
    return flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE


def _is_streamed(request: http.Request) -> bool:
    """Say whether mitmproxy streams the body, or may begin to when it sees how long it is."""
    return bool(request.stream) or "transfer-encoding" in request.headers


def _is_streamed_later(request: http.Request) -> bool:
    """Say whether a body may come that nothing has told of: HTTP/2 and HTTP/3 need no header for one."""
    return bool((request.is_http2 or request.is_http3) and ctx.options.stream_large_bodies)


def _response(status: int, text: str, *, method: str) -> http.Response:
    response = http.Response.make(status, text.encode(), _HEADERS)
    if method == "HEAD":  # mitmproxy would send the body, and the client take it for the next reply
        response.data.content = b""
    return response
