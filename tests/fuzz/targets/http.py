"""Requests of strangers: for challenges, frames of HTTP/2, and the host by which a request is routed."""

import asyncio
import re
from functools import cache

from mitmproxy.http import Headers, Request

from acme_storage.memory import Memory
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.mitm.http import challenge_reply
from mitmproxy_acme.mitm.http.challenge_reply import ChallengeResponder
from mitmproxy_acme.mitm.http.http2_limits import EmptyFrameCounter
from mitmproxy_acme.mitm.http.upstream_router import Refusal, UpstreamRouter, take_authority
from mitmproxy_acme.mitm.punycode_errors import PunycodeErrors
from tests.mitmproxy_acme.fakes import Clock, manager_on

from ..mutators import text_mutator
from ..target import Target

_TOKEN = "t" * 43
_SECRET = f"{_TOKEN}.thumbprint"
_PREFIX = "/.well-known/acme-challenge/"
_UPSTREAMS = ("a.example.test=http://127.0.0.1:1", "**.b.example.test=http://127.0.0.1:2", "[::1]=http://127.0.0.1:3")


@cache
def _responder() -> ChallengeResponder:
    manager = manager_on(Memory(), Clock(), acme_hide_challenges=True)
    manager.store.put_proof(Proof("http-01", _TOKEN, _SECRET))
    return ChallengeResponder(manager, ChallengeLookup(manager), Instrumentation())


def challenge_request(data: bytes) -> None:
    """The first bytes of a connection: only the exact request for a token of ours is answered."""
    reply = _responder().reply_at_once(data)
    if reply is not None:
        assert data.startswith(f"GET {_PREFIX}{_TOKEN} HTTP/1.".encode())
        assert data.endswith(b"\r\n\r\n")
        assert data.count(b"\r\n\r\n") == 1
        assert reply.endswith(b"\r\n\r\n" + _SECRET.encode())


def challenge_path(data: bytes) -> None:
    """A path: whatever is taken for a token is one, and can be part of a storage key."""
    path = data.decode("utf-8", "surrogateescape")
    token = path.partition("?")[0].removeprefix(_PREFIX)
    if challenge_reply._TOKEN.fullmatch(token):
        assert re.fullmatch(r"[A-Za-z0-9_-]{22,128}\Z", token)
        found = asyncio.run(_find(token))
        assert (found == _SECRET) == (token == _TOKEN)


async def _find(token: str) -> str | None:
    return _responder()._challenges.find_local("http-01", token)


def http2_frames(data: bytes) -> None:
    """Frames are counted alike, however they are cut into pieces."""
    whole, pieces = EmptyFrameCounter(lambda: 0.0), EmptyFrameCounter(lambda: 0.0)
    flood = whole.is_flood(data)
    cut = [pieces.is_flood(data[at : at + 7]) for at in range(0, len(data), 7)]
    assert flood == any(cut)


def route(data: bytes) -> None:
    """What ``Host`` and ``:authority`` say decides about the route, and nothing else is passed on."""
    version, _, rest = data.partition(b"\n")
    hosts = rest.split(b"\n")
    http2 = version == b"2"
    authority = hosts.pop(0).decode("latin-1") if http2 else ""
    headers = Headers([(b"Host", host) for host in hosts[:3]])
    request = Request(
        "127.0.0.1",
        1,
        b"GET",
        b"https" if http2 else b"",
        b"",
        b"/",
        b"HTTP/2.0" if http2 else b"HTTP/1.1",
        headers,
        b"",
        None,
        0.0,
        0.0,
    )
    try:
        request.authority = authority
    except ValueError:  # mitmproxy itself refuses it
        return
    named = take_authority(request)
    found = _router().find(named)
    if isinstance(found, Refusal):
        _router().report(found, named)
    elif named is not None:
        told = request.data.authority.decode("utf-8", "surrogateescape") if http2 else request.headers.get("Host")
        assert told == named


@cache
def _router() -> UpstreamRouter:
    return UpstreamRouter(manager_on(Memory(), Clock(), acme_upstreams=_UPSTREAMS).config, lambda: 0.0)


def _requests() -> list[bytes]:
    return [
        f"GET {_PREFIX}{token} HTTP/1.1\r\nHost: a.example.test\r\nUser-Agent: x\r\n\r\n".encode()
        for token in (_TOKEN, "u" * 43)
    ]


def _paths() -> list[bytes]:
    return [(_PREFIX + token).encode() for token in (_TOKEN, f"{_TOKEN}?x=1", "u" * 22, "%74" * 30, "é" * 30)]


def _frames() -> list[bytes]:
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    return [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings * count for count in (1, 1_100)]


def _hosts() -> list[bytes]:
    return [b"1\na.example.test", b"2\nA.Example.test:443\nother", b"1\n[::1]:80", b"2\nx.b.example.test.", b"1\na\nb"]


TARGETS = (
    Target(
        "challenge_request",
        challenge_request,
        _requests,
        [text_mutator(["\r\n", "\r\n\r\n", "HTTP/1.1"])],
        longest=3_000,
    ),
    Target("challenge_path", challenge_path, _paths, [text_mutator([_TOKEN, _PREFIX])], longest=400),
    Target("http2_frames", http2_frames, _frames, longest=12_000),
    Target(
        "route",
        route,
        _hosts,
        [text_mutator(["a.example.test", "b.example.test", ":443", "\n"])],
        longest=600,
        prepare=PunycodeErrors().install,
    ),
)
