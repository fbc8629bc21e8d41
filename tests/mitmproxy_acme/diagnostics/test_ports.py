"""What answers at an address: the proxy, another proxy, another program, or nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mitmproxy_acme.diagnostics import ports
from mitmproxy_acme.diagnostics.finding import Finding, Severity
from tests.servers.base import free_port

PROBE = ports.Probe("known-token", "known.answer", "unknown-token", up=False, passthrough=False)
OURS = (404, b"Not found\n")


def look(name: str, address: str, http_port: int, https_port: int, probe: ports.Probe) -> list[Finding]:
    return [
        ports.check_http(name, address, http_port, probe),
        ports.check_https(name, address, https_port, up=probe.up),
    ]


@contextmanager
def answering(known: tuple[int, bytes], unknown: tuple[int, bytes] = OURS) -> Iterator[int]:
    """Serve one answer for the token of the probe, and another for all else; both for the name alone."""

    class Answering(BaseHTTPRequestHandler):
        server_version, sys_version = "nginx", ""

        def do_GET(self) -> None:
            token = self.path.removeprefix("/.well-known/acme-challenge/")
            right = token == PROBE.token and self.headers["Host"] in ("a.test", "[::1]")
            status, body = known if right else unknown
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://a.test/\x1b[2J")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("known", "unknown", "outcome", "said"),
    [
        ((200, b"known.answer"), OURS, Severity.PASS, "answers challenges from this storage"),
        ((200, b"known.answer"), (200, b"hello"), Severity.WARN, "but HTTP 200 to an unknown one"),
        (OURS, OURS, Severity.FAIL, "a proxy with this addon that does not use this storage"),
        ((301, b""), OURS, Severity.WARN, "redirects challenges to https://a.test/"),
        ((404, b"<html>"), (404, b"<html>"), Severity.FAIL, "answered by another program (HTTP 404, nginx)"),
        ((200, b"hello"), (200, b"hello"), Severity.FAIL, "answered by another program (HTTP 200, nginx)"),
    ],
)
def test_who_answers(known: tuple[int, bytes], unknown: tuple[int, bytes], outcome: Severity, said: str) -> None:
    """The answers to a stored token and to an unknown one tell."""
    with answering(known, unknown) as port:
        http, https = look("a.test", "127.0.0.1", port, port, PROBE)
    assert (http.outcome, said in http.what) == (outcome, True), http.what
    assert https.what == f"a.test: 127.0.0.1:{port} accepts connections"


def test_without_a_storage_nobody_is_blamed_for_not_having_it() -> None:
    """A proxy is recognised by its answer to an unknown token, and so are other programs."""
    probe = ports.Probe("", PROBE.answer, PROBE.unknown, up=False, passthrough=False)
    for unknown, outcome, said in (
        (OURS, Severity.PASS, "is answered by a proxy with this addon; it is not known whether it has this storage"),
        ((404, b"<html>"), Severity.FAIL, "answered by another program (HTTP 404, nginx)"),
    ):
        with answering((500, b"no one asks"), unknown) as port:
            http, _ = look("a.test", "127.0.0.1", port, port, probe)
        assert (http.outcome, said in http.what) == (outcome, True), http.what


def test_unknown_tokens_may_be_the_upstreams() -> None:
    """With acme_challenge_passthrough whatever comes for them is right."""
    probe = ports.Probe(PROBE.token, PROBE.answer, PROBE.unknown, up=True, passthrough=True)
    with answering((200, b"known.answer"), (502, b"")) as port:
        http, _ = look("a.test", "127.0.0.1", port, port, probe)
    assert http.outcome is Severity.PASS


@pytest.mark.parametrize(("up", "outcome"), [(False, Severity.WARN), (True, Severity.FAIL)])
def test_nobody_listens(up: bool, outcome: Severity) -> None:
    """Before the first start that is no wonder; with a proxy that is up it is wrong."""
    probe = ports.Probe(PROBE.token, PROBE.answer, PROBE.unknown, up=up, passthrough=False)
    found = look("a.test", "127.0.0.1", free_port(), free_port(), probe)
    assert [finding.outcome for finding in found] == [outcome, outcome]


def test_what_speaks_no_http() -> None:
    """A port that closes the connection belongs to another program."""

    class HangingUp(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.connection.close()

    with ThreadingHTTPServer(("127.0.0.1", 0), HangingUp) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        http, _ = look("a.test", "127.0.0.1", server.server_port, server.server_port, PROBE)
        server.shutdown()
        thread.join()
    assert (http.outcome, "does not answer HTTP" in http.what) == (Severity.FAIL, True)


def test_address_is_asked_for_as_a_ca_does() -> None:
    """The Host header of IPv6 has brackets (RFC 8738 section 3, RFC 3986 section 3.2.2)."""
    with answering((200, b"known.answer")) as port:
        finding = ports.check_http("::1", "127.0.0.1", port, PROBE)
    assert finding.outcome is Severity.PASS
