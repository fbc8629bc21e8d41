"""Requests to the admin API: raw bytes on a connection, with and without the token."""

import asyncio
import logging
import os
import re
import tempfile
from functools import cache

from acme_storage.memory import Memory
from mitmproxy_acme.admin.api.server import AdminServer
from mitmproxy_acme.admin.context import AdminContext
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.metrics import Metrics
from mitmproxy_acme.config.admin_settings import AdminSocket
from mitmproxy_acme.core.errors import NameNotAllowed
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, manager_on

from ..mutators import behind_line, json_mutator, text_mutator, within
from ..target import Target

_TOKEN = "0123456789abcdef0123456789abcdef"
# 500 only for orders that fail, which say so; 501 never.
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_PATHS = (
    "/", "/acme", "/acme/certificates", "/acme/certificates/a.example.test",
    "/acme/certificates/a.example.test/renew", "/acme/status",
    "/acme/history", "/acme/traffic", "/health", "/metrics", "/openapi.json",
    "/acme/certificates?size=1&sort=expires_at&state=valid",
    "/acme/certificates?search=%C3%A9&offset=a.test&invalid_only", "/acme/certificates/%2A.example.test?reason=none",
)  # fmt: skip
_BODIES = (
    "",
    '{"host": "a.example.test"}',
    '{"host": "a.example.test", "test_http_challenge_flow": false}',
    "host=a.example.test",
)
_ANSWERED_WITHIN = 10.0


class _Faults(logging.Handler):
    """Errors with a traceback that were logged: faults of the program."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)


class _Api:
    """The admin API of a node whose CA refuses every name, on a Unix socket."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.path = os.path.join(tempfile.mkdtemp(), "admin.sock")
        self.faults = _Faults()
        for name in ("mitmproxy_acme", "tornado", "asyncio"):
            logging.getLogger(name).addHandler(self.faults)
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        clock = Clock()
        issuer = FakeIssuer(clock, error=NameNotAllowed("not today"))
        manager = manager_on(Memory(), clock, issuer, acme_admin_token=_TOKEN)
        inventory = Inventory(manager)
        self._reading = asyncio.ensure_future(inventory.run())
        self._server = AdminServer(AdminContext.of(manager, inventory, Metrics()), AdminSocket(self.path))
        self._server.start()

    async def _exchange(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN):
                writer.write(data)
                if writer.can_write_eof():
                    writer.write_eof()
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def answer(self, data: bytes) -> bytes:
        self.faults.found.clear()
        reply = self.loop.run_until_complete(self._exchange(data))
        for record in self.faults.found:
            raise AssertionError(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)
        return reply


@cache
def _api() -> _Api:
    return _Api()


def admin_request(data: bytes) -> None:
    """Whatever the bytes, nothing is logged as a fault, and a reply is well formed."""
    reply = _api().answer(data)
    if not reply:
        return
    status = _STATUS.match(reply)
    assert status, reply[:100]
    if status[1].startswith(b"5"):
        assert b"urn:mitmproxy-acme:problem:" in reply, reply[:500]


def admin_body(data: bytes) -> None:
    """An admitted change; the first line is its path, what follows its body."""
    head, body = behind_line(data)
    path = re.sub(rb"[^!-~]", b"", head) or b"/acme"
    kind = b"application/x-www-form-urlencoded" if body[:1] not in b'{["0123456789' else b"application/json"
    for method in (b"POST", b"DELETE", b"PATCH"):
        lines = [
            method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Authorization: Bearer " + _TOKEN.encode(),
            b"Content-Type: " + kind, b"Content-Length: %d" % len(body), b"Connection: close", b"", body,
        ]  # fmt: skip
        admin_request(b"\r\n".join(lines))


def admin_query(data: bytes) -> None:
    """A path and a query, percent-encoded where HTTP needs it, of an admitted read."""
    path = re.sub(rb"[^!-~]", lambda odd: b"%%%02X" % odd[0][0], data)
    admin_request(
        b"GET /"
        + path.lstrip(b"/")
        + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        + _TOKEN.encode()
        + b"\r\nConnection: close\r\n\r\n"
    )


def _requests() -> list[bytes]:
    heads = "Host: localhost\r\nAuthorization: Bearer " + _TOKEN + "\r\nConnection: close\r\n"
    made = [f"GET {path} HTTP/1.1\r\n{heads}\r\n" for path in _PATHS]
    for body in _BODIES:
        made.append(
            f"POST /acme HTTP/1.1\r\n{heads}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
    return [text.encode() for text in (*made, "PATCH /acme HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")]


def _bodies() -> list[bytes]:
    return [f"{path}\n{body}".encode() for path in _PATHS[1:5] for body in _BODIES]


def _queries() -> list[bytes]:
    return [path.encode() for path in _PATHS if "events" not in path]


_WORDS = (
    "Host: ", "Content-Length: ", "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=a",
    "--a\r\n", "Expect: 100-continue",
    "\r\n", "\r\n\r\n", "GET ", "POST ", "HTTP/1.1", "HTTP/1.0", "Authorization: Bearer ", "Origin: null",
    "Sec-Fetch-Site: cross-site",
    "Kong-Admin-Token: ", "Range: bytes=0-", "If-None-Match: *", "Accept: application/openmetrics-text", "?", "&",
    "=", "size=", "offset=",
    "search=", "state=", "sort=", "reason=", "%00", "%C3", "%ED%A0%80", "Cookie: a=\"\\", "X-Real-Ip: x",
    "X-Forwarded-For: a",
)  # fmt: skip
TARGETS = (
    Target(
        "admin_request",
        admin_request,
        _requests,
        [text_mutator(_WORDS)],
        seconds=2.0,
        longest=10_000,
        words=[word.encode() for word in _WORDS if '"' not in word],
    ),
    Target(
        "admin_body",
        admin_body,
        _bodies,
        [
            within(behind_line, json_mutator(["host", "test_http_challenge_flow", "a.example.test"])),
            text_mutator(_WORDS),
        ],
        seconds=2.0,
    ),
    Target("admin_query", admin_query, _queries, [text_mutator((*_PATHS, *_WORDS))], seconds=2.0, longest=2_000),
)
