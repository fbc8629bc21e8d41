"""Replies to requests for ``/.well-known/acme-challenge/`` (RFC 8555 section 8.3).

This module knows mitmproxy's HTTP flows; it must not know which node ordered. Only the token counts: before any hook
runs, mitmproxy has replaced the Host header by the upstream's.
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
# At least 128 bits of base64url (RFC 8555 section 8.3): anything else is not a token, and is not looked up.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")
# The whole request of a validator; mitmproxy reads anything that differs.
_REQUEST_START = b"GET " + _PREFIX.encode()
_REQUEST = re.compile(rb"([A-Za-z0-9_-]{22,128}) HTTP/1\.[01]\r\n(?:[\x20-\x7e\t]+\r\n)+\r\n")
_MAX_REQUEST = 2_048
_HEADERS = {"Content-Type": "text/plain; charset=us-ascii", "Cache-Control": "no-store"}


class ChallengeResponder:
    """Answers the challenges of one cluster. Use it from the event loop."""

    def __init__(self, manager: Manager, challenges: ChallengeLookup, measures: Instrumentation) -> None:
        self._manager = manager
        self._challenges = challenges
        self._measures = measures

    @property
    def hides(self) -> bool:
        """Whether answered challenges are kept from the flow list (``acme_hide_challenges``)."""
        return self._manager.config.hide_challenges

    def reply_at_once(self, received: bytes) -> bytes | None:
        """Return the whole reply to the first bytes of a connection, which is closed then; None for anything else.

        It answers only challenges of this node's own orders, and only hidden ones: no storage, no wait. A CA sends
        several requests for each name. mitmproxy's work for them (a flow, eight hooks for forty addons) was a sixth of
        the CPU of an order (measured).
        """
        if not (self.hides and received.startswith(_REQUEST_START) and len(received) <= _MAX_REQUEST):
            return None
        request = _REQUEST.fullmatch(received, len(_REQUEST_START))
        key_authorization = self._challenges.find_local(_HTTP, request[1].decode()) if request else None
        if key_authorization is None:
            return None
        self._measures.challenge(known=True)
        headers = _HEADERS | {"Connection": "close", "Content-Length": str(len(key_authorization))}
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), "", key_authorization]
        return "\r\n".join(lines).encode("ascii")

    def is_asked(self, flow: http.HTTPFlow) -> bool:
        """Say whether a request is for a challenge of any server; a request that mitmproxy finds invalid is not."""
        return flow.request.path.startswith(_PREFIX) and (flow.error is None or is_killed(flow))

    async def reply(self, flow: http.HTTPFlow) -> http.Response | None:
        """Return the reply to a challenge that waits for validation, on any node; None for any other request.

        ``flow`` is one for which ``is_asked`` is true.
        """
        token = flow.request.path.partition("?")[0].removeprefix(_PREFIX)
        key_authorization = await self._challenges.find(_HTTP, token) if _TOKEN.fullmatch(token) else None
        self._measures.challenge(known=key_authorization is not None)
        # A validator sends no body, and mitmproxy cannot send our reply to a request that it streams.
        if key_authorization is None or flow.request.method not in ("GET", "HEAD") or _is_streamed(flow.request):
            return None
        mark(flow, "ACME http-01 challenge")
        return _response(200, key_authorization, method=flow.request.method)

    def decline(self, flow: http.HTTPFlow, *, whole: bool) -> None:
        """Answer 404 to a challenge with an unknown token, in reverse mode; leave the flow alone otherwise.

        With ``acme_challenge_passthrough`` it goes to the upstream; in the other modes it is for another server.
        ``whole`` says that the body has been read: a request whose body mitmproxy may stream is not answered before.
        """
        is_settled = flow.response is not None or flow.error is not None  # by another addon
        if is_settled or not self.is_asked(flow) or not self._is_ours(flow):
            return
        if _is_streamed(flow.request):
            flow.kill()  # type: ignore[no-untyped-call]
            return
        if not whole and _is_streamed_later(flow.request):
            return
        flow.response = _response(404, "Not found\n", method=flow.request.method)
        mark(flow, "ACME http-01 challenge with an unknown token")

    def _is_ours(self, flow: http.HTTPFlow) -> bool:
        reverse = isinstance(flow.client_conn.proxy_mode, mode_specs.ReverseMode)
        return reverse and not self._manager.config.challenge_passthrough


def is_killed(flow: http.HTTPFlow) -> bool:
    """Say whether an addon asked mitmproxy to close the connection of a flow."""
    return flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE


def _is_streamed(request: http.Request) -> bool:
    """Say whether mitmproxy streams the body, or may begin to when it sees its length."""
    return bool(request.stream) or "transfer-encoding" in request.headers


def _is_streamed_later(request: http.Request) -> bool:
    """Say whether an unannounced body may follow: HTTP/2 and HTTP/3 need no header for one."""
    return bool((request.is_http2 or request.is_http3) and ctx.options.stream_large_bodies)


def _response(status: int, text: str, *, method: str) -> http.Response:
    response = http.Response.make(status, text.encode(), _HEADERS)
    if method == "HEAD":  # mitmproxy would send the body, and the client would read it as the next reply
        response.data.content = b""
    return response
