"""The sanity test of one name, where a server does not behave; the others are in end_to_end."""

import math
import socket
from threading import Thread

import pytest
import urllib3

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.diagnostics import http_self_test
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port

_LOCALHOST = ServerName("localhost")


def _serve(reply: bytes, *, silent: bool = False) -> int:
    """Answer one connection with these bytes; return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with server:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(reply)
                if silent:
                    client.recv(1)  # until the other one has had enough

    Thread(target=answer, daemon=True).start()
    return int(server.getsockname()[1])


def _problem(reply: bytes, *, silent: bool = False) -> str | None:
    memory = Memory()
    problem = http_self_test.find_problem(Store(memory, UNSEALED), _LOCALHOST, port=_serve(reply, silent=silent))
    assert memory.keys("") == []
    return problem


def test_probe_that_cannot_be_removed_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It expires by itself; the answer is what counts."""

    class Kept(Store):
        def delete_proof(self, proof: object) -> None:
            raise StorageUnavailable("down")

    port = _serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    problem = http_self_test.find_problem(Kept(Memory(), UNSEALED), _LOCALHOST, port=port)
    assert problem == 'unexpected response: "no", unexpected status code: 404'


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH\r\n"])
def test_what_speaks_no_http(reply: bytes) -> None:
    """Something listens, and is no web server."""
    assert (_problem(reply) or "").startswith("the connection broke")


def test_what_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the request and says nothing is not waited for without end."""
    monkeypatch.setattr(http_self_test, "_TIMEOUT", 0.1)
    assert _problem(b"", silent=True) == "no answer in time"


def test_what_answers_drop_by_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drop comes in time, all of them do not."""
    monkeypatch.setattr(http_self_test, "_TIMEOUT", -1.0)
    body = urllib3.HTTPResponse([b"drop"] * 3, preload_content=False)
    monkeypatch.setattr(body, "read1", lambda *_, **__: b"drop")
    with pytest.raises(urllib3.exceptions.TimeoutError):
        http_self_test._read(body, 0.0)


def test_long_replies_are_cut() -> None:
    """A page of any length is not read to its end, nor shown whole."""
    problem = _problem(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000) or ""
    assert problem == f'unexpected response: "{"x" * 80}", unexpected status code: 200'


def test_name_without_address() -> None:
    """DNS has nothing."""
    problem = http_self_test.find_problem(Store(Memory(), UNSEALED), ServerName("nowhere.invalid"))
    assert problem == "the name has no address in DNS"


def test_ipv6_address_is_asked_for() -> None:
    """In brackets, as a URL has it."""
    memory = Memory()
    problem = http_self_test.find_problem(Store(memory, UNSEALED), ServerName("::1"), port=free_port())
    assert problem == "no connection"


def test_no_more_is_read_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends without end is not read to the end."""
    body = urllib3.HTTPResponse([b""], preload_content=False)
    parts = iter([b"x" * 1_000] * 100)
    monkeypatch.setattr(body, "read1", lambda *_, **__: next(parts, b""))
    assert len(http_self_test._read(body, math.inf)) == 2_000


@pytest.mark.parametrize(
    ("status", "body", "good"),
    [
        ("200 OK", b"T" * 43, True),
        ("200 OK", b"<p>" + b"T" * 43, False),
        ("200 OK", b"T" * 43 + b"\n", False),
        ("404 Not Found", b"T" * 43, False),
        ("200 OK", b"", False),
    ],
)
def test_reply_is_the_proof_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, status: str, body: bytes, good: bool
) -> None:
    """A page that happens to quote what was asked for would not satisfy a CA, and neither would an error."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "T" * 43)
    problem = _problem(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert (problem is None) is good
    assert good or f"unexpected status code: {status[:3]}" in str(problem)
