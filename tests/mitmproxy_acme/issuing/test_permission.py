"""``acme_ask``: a real server answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from mitmproxy_acme.errors import NameNotAllowed
from mitmproxy_acme.issuing.permission import Permission
from mitmproxy_acme.names import ServerName
from tests.mitmproxy_acme.fakes import Clock
from tests.servers.base import free_port

GOOD, BAD = ServerName("good.test"), ServerName("bad.test")


class _Ask(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status = 302 if "moved" in self.path else 204 if "good" in self.path else 403
        self.send_response(status)
        self.send_header("Location", "/?domain=good.test")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server that allows names with ``good`` in them; its URL, and what it was asked."""
    _Ask.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ask) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/check?token=x", _Ask.asked
        server.shutdown()
        thread.join()


def test_answer_decides_and_is_remembered(asked: tuple[str, list[str]], clock: Clock) -> None:
    """A 2xx allows, anything else refuses; both are remembered, and asked again in time."""
    url, questions = asked
    permission = Permission(url, clock)
    for _ in range(3):
        permission.require(GOOD)
        with pytest.raises(NameNotAllowed, match="acme_ask answered 403"):
            permission.require(BAD)
    assert questions == ["/check?token=x&domain=good.test", "/check?token=x&domain=bad.test"]
    clock.advance(300)
    permission.require(GOOD)
    assert len(questions) == 3
    clock.advance(-3_600)
    permission.require(GOOD)
    assert len(questions) == 4


def test_redirect_is_no_permission(asked: tuple[str, list[str]], clock: Clock) -> None:
    """A login page that the question is sent to allows nothing."""
    with pytest.raises(NameNotAllowed, match="302"):
        Permission(asked[0], clock).require(ServerName("moved.test"))


def test_nobody_there_is_no_permission(clock: Clock) -> None:
    """While the operator's service is down nothing is ordered."""
    with pytest.raises(NameNotAllowed, match="cannot be asked"):
        Permission(f"http://127.0.0.1:{free_port()}/", clock).require(GOOD)
