"""What a validator of tls-alpn-01 would find at an address: the proxy, another proxy, another program, or nothing."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from OpenSSL import SSL

from acme_storage.memory import Memory
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.diagnostics import tls_alpn_check
from mitmproxy_acme.diagnostics.finding import Finding, Severity
from mitmproxy_acme.mitm.tls import tls_alpn
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port
from tests.servers.ca import ThrowawayCA

_DIGEST, _OTHER = "0a" * 32, "0b" * 32


@contextmanager
def accepting(context: SSL.Context | None) -> Iterator[int]:
    """Do one handshake; without a context answer as a web server does that has no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(Exception):  # of a handshake that is meant to fail
                if context is None:
                    client.recv(4_096)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                connection = SSL.Connection(context, client)
                connection.set_accept_state()
                connection.do_handshake()
                connection.shutdown()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def look(context: SSL.Context | None, digest: str) -> Finding:
    with accepting(context) as port:
        return tls_alpn_check.check("a.test", "127.0.0.1", port, digest, up=True)


def web_server(folder: Path, *, strict: bool) -> SSL.Context:
    """Serve TLS without tls-alpn-01; a strict server refuses by an alert (RFC 7301 section 3.2)."""

    def refuse(*_: object) -> bytes:
        raise ValueError

    identity, context = ThrowawayCA(folder).issue("a.test"), SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(identity.certificate))
    context.use_privatekey_file(str(identity.key))
    if strict:
        context.set_alpn_select_callback(refuse)
    return context


@pytest.mark.parametrize(
    ("digest", "outcome", "said"),
    [
        (_DIGEST, Severity.PASS, "answers tls-alpn-01 from this storage"),
        (_OTHER, Severity.FAIL, "another proof than this storage has; unless an order is running, give"),
        ("", Severity.PASS, "answers validators of tls-alpn-01"),
    ],
    ids=["of this storage", "of another", "with an order under way"],
)
def test_proof_is_shown(digest: str, outcome: Severity, said: str) -> None:
    """It must be the one in the storage."""
    finding = look(tls_alpn.connection("a.test", _DIGEST).get_context(), digest)
    assert (finding.outcome, said in finding.what) == (outcome, True), finding.what


def test_proxy_without_the_storage() -> None:
    """It refuses validators for a name of its own without an order."""
    finding = look(SSL.Context(SSL.TLS_SERVER_METHOD), _DIGEST)
    assert (finding.outcome, "set the same acme_storage for both" in finding.what) == (Severity.FAIL, True), (
        finding.what
    )


@pytest.mark.parametrize("strict", [False, True], ids=["ignores the protocol", "refuses it"])
def test_something_else_ends_the_tls(tmp_path: Path, *, strict: bool) -> None:
    """A proxy in front that terminates TLS keeps validators from ours."""
    finding = look(web_server(tmp_path, strict=strict), _DIGEST)
    assert (finding.outcome, "with TLS untouched" in finding.what) == (Severity.FAIL, True), finding.what


def test_no_tls_at_all() -> None:
    """A port without TLS belongs to another program."""
    finding = look(None, _DIGEST)
    assert (finding.outcome, "does not speak TLS" in finding.what) == (Severity.FAIL, True), finding.what


@pytest.mark.parametrize(("up", "outcome"), [(False, Severity.WARN), (True, Severity.FAIL)])
def test_nobody_listens(up: bool, outcome: Severity) -> None:
    """Before the first start that is no wonder; with a proxy that is up it is wrong."""
    assert tls_alpn_check.check("a.test", "127.0.0.1", free_port(), _DIGEST, up=up).outcome is outcome


def test_look_leaves_orders_alone() -> None:
    """A stored proof is not replaced; an order's proof replaces a test's, which is then not deleted."""
    store, place = Store(Memory(), UNSEALED), "a.test"
    ours, order = Proof("tls-alpn-01", place, _DIGEST), Proof("tls-alpn-01", place, _OTHER)
    assert store.put_test_proof(ours)
    store.put_proof(order)
    assert not store.put_test_proof(ours)
    store.delete_proof(ours)
    assert store.proof("tls-alpn-01", place) == _OTHER
