"""On demand: who may have a certificate, how long a handshake waits for it, and what it is spared."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.end_to_end.client import Served, handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.pebble import Pebble

FreshName = Callable[[], str]


def soon(holds: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether it holds before the time is over."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# How long a handshake is held


def test_wait_is_bounded_and_the_order_goes_on(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """A handshake ends with the fallback after acme_handshake_wait; the order it began serves the next visitor."""
    name, running = fresh_name(), proxy(acme_handshake_wait=1)
    handshake(running.https_port, fresh_name(), root)  # the account is made
    before = pebble.seen()

    pebble.pause()
    try:
        begun = time.monotonic()
        assert not is_trusted(running.https_port, name, root)
        waited = time.monotonic() - begun
    finally:
        pebble.resume()

    assert 1 <= waited < 6
    assert soon(lambda: (pebble.seen() - before).certificates == 1)  # and no client is connected
    assert soon(lambda: is_trusted(running.https_port, name, root))
    assert (pebble.seen() - before).orders == 1


def test_order_goes_on_when_the_client_has_left(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """A client that hangs up while it waits leaves a certificate for the next one."""
    name, running = fresh_name(), proxy()
    before = pebble.seen()
    outgoing = ssl.MemoryBIO()
    secure = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        secure.do_handshake()

    pebble.pause()
    try:
        with socket.create_connection(("127.0.0.1", running.https_port), 5) as plain:
            plain.sendall(outgoing.read())
            plain.settimeout(0.5)
            with pytest.raises(TimeoutError):
                plain.recv(1)
    finally:
        pebble.resume()

    assert soon(lambda: (pebble.seen() - before).certificates == 1)
    assert handshake(running.https_port, name, root).names == [name]
    assert (pebble.seen() - before).orders == 1


def test_background_answers_at_once_and_is_trusted_soon(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """With acme_on_demand=background no handshake is held: the first get the fallback, one order serves the rest."""
    name, running = fresh_name(), proxy(acme_on_demand="background")
    before = pebble.seen()

    pebble.pause()
    try:
        begun = time.monotonic()
        assert not any(is_trusted(running.https_port, name, root) for _ in range(3))
        assert time.monotonic() - begun < 5
    finally:
        pebble.resume()

    assert soon(lambda: is_trusted(running.https_port, name, root))
    assert (pebble.seen() - before).orders == 1


def test_off_orders_nothing_and_serves_what_is_stored(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """With acme_on_demand=off a name without certificate gets the fallback, one with a stored one is served."""
    stored, new, running = fresh_name(), fresh_name(), proxy()
    first = handshake(running.https_port, stored, root)
    running.options["acme_on_demand"] = "off"
    running.restart()
    before = pebble.seen()

    assert not is_trusted(running.https_port, new, root)
    assert handshake(running.https_port, stored, root).leaf == first.leaf
    assert (pebble.seen() - before).orders == 0


# Which names


def test_four_forms_of_acme_domains(proxy: StartProxy, pebble: Pebble, root: str) -> None:
    """A name, one label, any depth and a pattern each allow what they say, in any case, and nothing more."""
    running = proxy(
        acme_domains=["Exact.Form.test", "*.one.form.test", "**.any.form.test", r"re:(shop|www)-\d+\.form\.test"]
    )
    allowed = [
        "exact.form.test",
        "a.one.form.test",
        "a.any.form.test",
        "c.b.a.any.form.test",
        "shop-7.form.test",
        "www-123.form.test",
    ]
    denied = [
        "a.exact.form.test",
        "one.form.test",
        "b.a.one.form.test",
        "any.form.test",
        "xany.form.test",
        "shop-x.form.test",
        "a.shop-7.form.test",
        "shop-7.form.test.evil.test",
        "form.test",
    ]
    before = pebble.seen()

    assert [served.names for served in handshakes(running.https_port, allowed, root)] == [[name] for name in allowed]
    assert [name for name in denied if is_trusted(running.https_port, name, root)] == []
    assert (pebble.seen() - before).orders == len(allowed)


def test_any_domain(proxy: StartProxy, root: str) -> None:
    """With acme_allow_any_domain whatever name a client asks for is ordered."""
    running = proxy(acme_domains=[], acme_allow_any_domain=True)

    for name in ("any.domain.test", "other.whole.tree.invalid"):
        assert handshake(running.https_port, name, root).names == [name]


# acme_ask


class Ask:
    """The operator's service that decides: `status` is what it answers now, `asked` what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/may"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(ask: Ask) -> type[BaseHTTPRequestHandler]:
    class Decision(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ask.asked += parse_qs(urlsplit(self.path).query)["domain"]
            self.send_response(ask.status)
            for name, value in ask.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Decision


@pytest.fixture
def ask() -> Iterator[Ask]:
    server = Ask()
    yield server
    server.close()


def test_ask_allows(proxy: StartProxy, ask: Ask, root: str, fresh_name: FreshName) -> None:
    """A name that acme_ask answers with 2xx is ordered; it is asked once, however many clients come."""
    name, running = fresh_name(), proxy(acme_ask=ask.url)
    ask.status = 204

    served: list[Served] = handshakes(running.https_port, [name] * 20, root)
    served += [handshake(running.https_port, name, root) for _ in range(5)]

    assert len({s.leaf.serial_number for s in served}) == 1
    assert ask.asked == [name]


@pytest.mark.parametrize("status", [403, 500, 302])
def test_ask_denies(proxy: StartProxy, ask: Ask, pebble: Pebble, root: str, fresh_name: FreshName, status: int) -> None:
    """Whatever is not 2xx, a redirect to a yes too, denies; it is asked once for many visits, and the CA never."""
    name, running = fresh_name(), proxy(acme_ask=ask.url)
    ask.status = status
    ask.headers = {"Location": f"{ask.url}?domain=yes.example.test"}
    before = pebble.seen()

    assert not any(is_trusted(running.https_port, name, root) for _ in range(10))

    assert ask.asked == [name]
    assert (pebble.seen() - before).requests == 0


def test_ask_that_nobody_answers_denies(proxy: StartProxy, pebble: Pebble, root: str, fresh_name: FreshName) -> None:
    """With the service down nothing is ordered, and the clients are answered without delay."""
    name, running = fresh_name(), proxy(acme_ask=f"http://127.0.0.1:{free_port()}/")
    before, begun = pebble.seen(), time.monotonic()

    assert not any(is_trusted(running.https_port, name, root) for _ in range(3))

    assert time.monotonic() - begun < 5
    assert (pebble.seen() - before).requests == 0


def test_ask_and_domains_must_both_allow(proxy: StartProxy, ask: Ask, root: str) -> None:
    """Beside acme_domains the service is asked for the names these allow only; alone it is asked for any."""
    running = proxy(acme_ask=ask.url)
    assert not is_trusted(running.https_port, "ask.elsewhere.test", root)
    assert ask.asked == []

    running.options["acme_domains"] = []
    running.restart()
    assert handshake(running.https_port, "ask.elsewhere.test", root).names == ["ask.elsewhere.test"]
    assert ask.asked == ["ask.elsewhere.test"]


def test_ask_is_not_asked_for_managed_or_stored_names(
    proxy: StartProxy, ask: Ask, root: str, fresh_name: FreshName
) -> None:
    """What the operator lists, and what has its certificate already, needs no permission."""
    managed, stored = fresh_name(), fresh_name()
    running = proxy(acme_ask=ask.url, acme_certificates=[managed])
    handshake(running.https_port, stored, root)
    ask.status, ask.asked = 403, []
    running.restart()

    assert handshake(running.https_port, managed, root).names == [managed]
    assert handshake(running.https_port, stored, root).names == [stored]
    assert ask.asked == []
