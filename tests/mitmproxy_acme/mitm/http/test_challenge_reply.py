"""Requests for challenges: the reply to each, and what strangers' requests cost."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.proxy import mode_specs
from mitmproxy.test import taddons, tflow

from acme_storage.memory import Memory
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.mitm.http.challenge_hooks import ChallengeHooks
from mitmproxy_acme.mitm.http.challenge_reply import ChallengeResponder
from tests.costs import loop_seconds
from tests.mitmproxy_acme.conftest import MakeManager

PREFIX = "/.well-known/acme-challenge/"
TOKEN = "t" * 43
PROOF = Proof("http-01", TOKEN, f"{TOKEN}.thumbprint")


@pytest.fixture(autouse=True)
def tctx() -> Iterator[Any]:
    with taddons.context() as context:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        context.options.add_option("stream_large_bodies", str | None, None, "")
        yield context


def asking(path: str, method: str = "GET", mode: str = "reverse:http://127.0.0.1:1", **headers: str) -> HTTPFlow:
    flow = tflow.tflow()
    flow.request.method, flow.request.path = method, path
    flow.request.headers.update(headers)
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    flow.live = True
    return flow


class Server:
    """A manager that has published PROOF, and its responder."""

    def __init__(self, manager: Manager) -> None:
        manager.store.put_proof(PROOF)
        self.responder = ChallengeResponder(manager, ChallengeLookup(manager), Instrumentation())

    async def answer(self, flow: HTTPFlow) -> int | None:
        """Return the status of the reply; None if the request goes on to the upstream, 0 if it is killed."""
        if self.responder.is_asked(flow) and (reply := await self.responder.reply(flow)) is not None:
            return reply.status_code
        self.responder.decline(flow, whole=False)
        self.responder.decline(flow, whole=True)
        if flow.error is not None:
            return 0
        return flow.response.status_code if flow.response is not None else None


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (PREFIX + TOKEN, "GET", 200),
        (f"{PREFIX}{TOKEN}?cache=no", "HEAD", 200),
        (PREFIX + TOKEN, "POST", 404),
        (f"{PREFIX}{TOKEN}/", "GET", 404),
        (f"{PREFIX}{TOKEN[:-1]}", "GET", 404),
        (PREFIX, "GET", 404),
        (PREFIX.upper() + TOKEN, "GET", None),
        (f"/x{PREFIX}{TOKEN}", "GET", None),
        ("*", "OPTIONS", None),
    ],
)
async def test_answers_in_reverse_mode(make_manager: MakeManager, path: str, method: str, status: int | None) -> None:
    """Only the token counts; requests for anything else are left alone."""
    assert await Server(make_manager()).answer(asking(path, method)) == status


@pytest.mark.parametrize(("token", "length"), [(TOKEN, len(PROOF.value)), ("u" * 43, len("Not found\n"))])
async def test_reply_to_head_has_no_body(make_manager: MakeManager, token: str, length: int) -> None:
    """mitmproxy sends any body, and the client would read it as the next reply (RFC 9110 section 9.3.2)."""
    server, flow = Server(make_manager()), asking(PREFIX + token, "HEAD")
    reply = await server.responder.reply(flow)
    server.responder.decline(flow, whole=True)
    reply = reply or flow.response
    assert reply is not None
    assert (reply.raw_content, reply.headers["content-length"]) == (b"", str(length))


async def test_unknown_tokens_elsewhere_are_left_alone(make_manager: MakeManager) -> None:
    """They are for another server in the forward modes, and for the upstream with acme_challenge_passthrough."""
    unknown = PREFIX + "u" * 43
    assert await Server(make_manager()).answer(asking(unknown, mode="regular")) is None
    passing = Server(make_manager(acme_challenge_passthrough=True))
    assert await passing.answer(asking(unknown)) is None
    assert await passing.answer(asking(PREFIX + TOKEN)) == 200


@pytest.mark.parametrize("token", [TOKEN, "u" * 43], ids=["known", "unknown"])
async def test_request_with_a_streamed_body_is_killed(make_manager: MakeManager, token: str) -> None:
    """mitmproxy crashes (NotImplementedError) if a request that it streams already has a response."""
    server, flow = Server(make_manager()), asking(PREFIX + token)
    flow.request.stream = True
    assert await server.answer(flow) == 0
    assert await server.answer(asking(PREFIX + token, **{"Transfer-Encoding": "chunked"})) == 0


async def test_body_that_http_2_does_not_announce_is_waited_for(make_manager: MakeManager, tctx: Any) -> None:
    """Only with stream_large_bodies: the 404 comes when the body has been read."""
    responder, flow = Server(make_manager()).responder, asking(PREFIX + "u" * 43)
    flow.request.http_version = "HTTP/2.0"
    tctx.options.update(stream_large_bodies="1m")
    responder.decline(flow, whole=False)
    assert flow.response is None
    responder.decline(flow, whole=True)
    assert flow.response is not None


async def test_ten_thousand_invented_tokens_cost_a_few_reads(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of reads is bounded by the time that they take, not by the number of requests."""
    read: list[str] = []
    get, keys = memory.get, memory.keys

    def note_get(key: str) -> bytes | None:
        read.append(key)
        return get(key)

    def note_keys(prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        read.append(prefix)
        return keys(prefix, after=after, limit=limit)

    monkeypatch.setattr(memory, "get", note_get)
    monkeypatch.setattr(memory, "keys", note_keys)
    server = Server(make_manager())
    for batch in range(10):
        flows = [asking(f"{PREFIX}{'u' * 30}-{batch}-{number}") for number in range(1_000)]
        assert set(await asyncio.gather(*map(server.answer, flows))) == {404}
    assert len(read) <= 20


HOSTILE = {
    "long path": asking(PREFIX + "u" * 1_000_000),
    "long query": asking(f"{PREFIX}{'u' * 43}?{'?' * 1_000_000}"),
    "many slashes": asking(PREFIX + "/" * 1_000_000),
    "nearly a token": asking(f"{PREFIX}{'u' * 128}="),
    "prefix over and over": asking(PREFIX * 40_000),
    "percent signs": asking(PREFIX + "%" * 1_000_000),
    "long method": asking(PREFIX + "u" * 43, method="G" * 1_000_000),
    "many headers": asking(PREFIX + "u" * 43),
    "long header": asking(PREFIX + "u" * 43, **{"Transfer-Encoding": "," * 1_000_000}),
}
HOSTILE["many headers"].request.headers = Headers([(b"a", b"b")] * 100_000)


@pytest.mark.parametrize("what", HOSTILE)
async def test_no_request_keeps_the_loop(make_manager: MakeManager, tctx: Any, what: str) -> None:
    """A megabyte of anything costs a fraction of what mitmproxy takes to read it."""
    server = Server(make_manager())
    hooks = ChallengeHooks()
    hooks.responder = server.responder
    hooks.install()

    async def ask() -> None:
        flow = HOSTILE[what]
        flow.response = flow.error = None
        flow.live = True
        if (replying := hooks.requestheaders(flow)) is not None:
            await replying
        server.responder.decline(flow, whole=False)
        hooks.request(flow)

    assert await loop_seconds(ask) < 0.05
    hooks.uninstall()


REQUEST = f"GET {PREFIX}{TOKEN} HTTP/1.1\r\nHost: a.example.test\r\nUser-Agent: a validator\r\n\r\n".encode()


async def test_validator_is_answered_before_its_request_is_read(make_manager: MakeManager) -> None:
    """The reply is complete, and says that the connection closes."""
    head, _, body = (Server(make_manager()).responder.reply_at_once(REQUEST) or b"").partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert {"Content-Length: 54", "Connection: close", "Cache-Control: no-store"} <= set(lines)
    assert body == PROOF.value.encode()


@pytest.mark.parametrize(
    "received",
    [
        b"",
        REQUEST[:-1],
        REQUEST + b"GET",
        REQUEST.replace(b"GET", b"POST"),
        REQUEST.replace(TOKEN.encode(), b"u" * 43),
        REQUEST.replace(TOKEN.encode(), TOKEN.encode() + b"?a=b"),
        REQUEST.replace(b" HTTP/1.1", b""),
        REQUEST.replace(b"a.example", b"\x00"),
        REQUEST.replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 1_000 + b"\r\n"),
    ],
    ids=["nothing", "part", "more", "method", "token", "query", "version", "control character", "long"],
)
async def test_other_requests_than_a_validators_are_left_to_mitmproxy(
    make_manager: MakeManager, received: bytes
) -> None:
    """They are read and answered in the ordinary way."""
    assert Server(make_manager()).responder.reply_at_once(received) is None


async def test_shown_challenge_is_left_to_mitmproxy(make_manager: MakeManager) -> None:
    """With ``acme_hide_challenges=false`` other addons see a copy of its flow, so there must be one."""
    assert Server(make_manager(acme_hide_challenges=False)).responder.reply_at_once(REQUEST) is None
