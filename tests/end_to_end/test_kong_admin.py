"""What talks to Kong's Admin API talks to this one: its calls, with the real curl, and its replies."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.diagnostics import http_self_test
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.keys import lease_key
from mitmproxy_acme.store.store import Store
from tests.end_to_end.admin import TOKEN, Api, curl, with_api
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy, default_options
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import DAY, ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_KONGS_FIELDS = {
    "digest",
    "host",
    "issuer_cn",
    "not_before",
    "not_after",
    "valid",
    "serial_number",
    "pubkey_type",
}
_STORED = 260


@dataclass(frozen=True)
class Place:
    """One proxy for most of these tests: its storage with 260 certificates, its CA, its API."""

    api: Api
    ca: Pebble
    running: Mitmdump
    storage: Storage

    def put(self, name: str, *, age: float = 0.0) -> None:
        """Store a certificate of this CA that no calendar lists, of so many seconds ago, valid for 90 days."""
        certificate = make_certificate([name], now=int(time.time() - age), ca=self.ca.directory)
        self.storage.put(f"certificates/{name}", certificate.to_record())


@pytest.fixture(scope="module")
def place(dns: ChallTestSrv, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, port = tmp_path_factory.mktemp("kong"), free_port()
    storage = open_storage(f"file:{folder}", default_folder=folder)
    with Pebble(dns) as ca:
        options = default_options(ca, folder) | {"acme_admin_listen": f"127.0.0.1:{port}"}
        running = Forked(upstream.url, options | {"acme_admin_token": "env:T"}, http_port=ca.http_port)
        running.environment["T"] = TOKEN
        place = Place(Api(port), ca, running, storage)
        for number in range(_STORED):
            place.put(f"s{number:03}.stored.test")
        place.put("due.example.test", age=75 * DAY)
        place.put("old.stored.test", age=91 * DAY)
        with running:
            yield place


def test_create_and_create_again(place: Place, fresh_name: FreshName) -> None:
    """201 with Kong's words when it is stored and served; 201 again, without a second order."""
    name = fresh_name()
    before = place.ca.seen()

    first = place.api.create(name)
    served = handshake(place.running.https_port, name, place.ca.root())
    again = place.api.create(name)

    assert (first.status, first.message) == (201, f"certificate for host {name} is created")
    assert (again.status, again.message) == (201, f"certificate for host {name} is created")
    assert served.names == [name]
    assert (place.ca.seen() - before).orders == 1


@pytest.mark.parametrize("form", ["-d", "-F"])
def test_create_as_kongs_documentation_does(place: Place, fresh_name: FreshName, form: str) -> None:
    """A form by curl -d, or in parts by -F, with Kong's own header for the token."""
    name = fresh_name()

    answer = curl("-H", f"Kong-Admin-Token: {TOKEN}", form, f"host={name}", f"{place.api.url}/acme")

    assert (answer.status, answer.message) == (201, f"certificate for host {name} is created")


def test_form_that_is_none_is_refused(place: Place) -> None:
    """400 with what would be right."""
    kind = "Content-Type: multipart/form-data; boundary=x"
    answer = place.api("POST", "/acme", "-H", kind, "-d", "host=a.example.test")

    assert (answer.status, answer.message) == (
        400,
        "the body is not what its Content-Type says; send a JSON object or a complete form",
    )


def test_create_normalises_the_host(place: Place, fresh_name: FreshName) -> None:
    """Upper case and a trailing dot are what DNS makes of them."""
    name = fresh_name()

    answer = place.api.create(f"{name.upper()}.")

    assert answer.message == f"certificate for host {name} is created"
    assert place.api.show(name.upper())["host"] == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "host must be provided and containing a single domain"),
        ({"host": ""}, "host must be provided and containing a single domain"),
        ({"host": ["a.example.test"]}, "host must be provided and containing a single domain"),
        ({"host": "a.example.test b.example.test"}, "host must be provided and containing a single domain"),
        ({"host": "127.0.0.1"}, "host 127.0.0.1 is not included in acme_ip_certificates or acme_certificates"),
        ({"host": "127.0.0"}, "host must be provided and containing a single domain"),
        ({"host": "127.0.0.1:443"}, "port is not allowed in host"),
        ({"host": "[::1]:443"}, "port is not allowed in host"),
        ({"host": "a.example.test:443"}, "port is not allowed in host"),
        ({"host": "http://a.example.test/"}, "host must be provided and containing a single domain"),
        ({"host": "fe80::1"}, "host must be provided and containing a single domain"),
        ({"host": "www.other.test"}, "host www.other.test is not included in acme_domains or acme_certificates"),
        ({"host": "a.example.test", "test_http_challenge_flow": "yes"}, "test_http_challenge_flow is true or false"),
    ],
)
def test_create_refuses(place: Place, fields: dict[str, object], message: str) -> None:
    """400 with Kong's words where it has some; the CA is not asked."""
    before = place.ca.seen()

    answer = place.api("POST", "/acme", json_body=fields)

    assert (answer.status, answer.message) == (400, message)
    assert place.ca.seen() == before


def test_create_that_fails_says_why(place: Place, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """500 with Kong's words and the CA's reason; it is tried again whenever a person says so."""
    name = fresh_name()
    dns.set_servfail(name)
    before = place.ca.seen()

    first, again = place.api.create(name), place.api.create(name)

    assert first.status == again.status == 500
    assert first.message.startswith("failed to update certificate: ")
    assert f" could not validate {name}: " in again.message
    assert (place.ca.seen() - before).orders == 2


def test_create_with_another_cas_certificate_in_its_place(
    place: Place, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """It is served until ours can be obtained, but nothing was created: 500 with the reason."""
    name = fresh_name()
    dns.set_servfail(name)
    other = make_certificate([name], now=int(time.time()))
    place.storage.put(f"certificates/{name}", other.to_record())

    answer = place.api.create(name)

    assert answer.status == 500
    assert answer.message.startswith("failed to update certificate: ")
    assert place.api.show(name)["ca"] == other.ca


@pytest.mark.parametrize("fails", [False, True], ids=["it succeeds", "it fails"])
def test_create_while_another_node_orders(
    proxy: StartProxy, pebble: Pebble, dns: ChallTestSrv, store: Storage, fresh_name: FreshName, fails: bool
) -> None:
    """The answer comes when the other's order has ended, and is true; there is one order."""
    name = fresh_name()
    with Chaos(pebble.port) as slow:
        address = [f"https://localhost:{slow.port}/dir"]
        _, one = with_api(proxy, acme_ca=address)
        second, other = with_api(proxy, acme_ca=address, start=False)
        second.http_port = free_port()
        second.start()
        assert one.create(fresh_name()).status == 201  # the account is there
        if fails:
            dns.set_servfail(name)
        before = pebble.seen()
        slow.delay(0.05)
        with ThreadPoolExecutor() as pool:
            ordering = pool.submit(one.create, name)
            eventually(lambda: store.get(lease_key(name)))
            answer = other.create(name)
            stored = store.get(f"certificates/{name}") is not None

        statuses = (ordering.result().status, answer.status)
    assert (*statuses, stored) == ((500, 500, False) if fails else (201, 201, True))
    assert (pebble.seen() - before).orders == 1


def test_patch_renews_what_is_due(place: Place) -> None:
    """202 with Kong's words, and then a new certificate in the place of the one that was due."""
    before = place.api.show("due.example.test")
    assert before["state"] in ("due", "expiring")

    answer = place.api("PATCH", "/acme")

    assert (answer.status, answer.message) == (202, "Renewal process started successfully")
    eventually(lambda: place.api.show("due.example.test")["serial_number"] != before["serial_number"], timeout=20)
    assert place.api.show("due.example.test")["state"] == "valid"


def test_certificate_has_kongs_fields(place: Place, fresh_name: FreshName) -> None:
    """Its eight fields, as Kong writes them: digests with colons, times without a zone, OpenSSL's key types."""
    name = fresh_name()
    place.api.create(name)
    leaf = handshake(place.running.https_port, name, place.ca.root()).leaf

    shown = place.api.show(name)

    assert set(shown) >= _KONGS_FIELDS
    assert shown["host"] == name
    assert re.fullmatch(r"([0-9A-F]{2}:){19}[0-9A-F]{2}", shown["digest"])
    assert re.fullmatch(r"([0-9A-F]{2}:)*[0-9A-F]{2}", shown["serial_number"])
    assert int(shown["serial_number"].replace(":", ""), 16) == leaf.serial_number
    assert (shown["valid"], shown["pubkey_type"]) == (True, "id-ecPublicKey")
    assert shown["issuer_cn"].startswith("Pebble Intermediate CA")
    assert shown["not_before"] == f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M:%S}"
    assert shown["not_after"] == f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S}"


def test_unknown_host_is_not_found(place: Place) -> None:
    """404, with a sentence, for a name without a certificate and for a text that is no name."""
    answer = place.api("GET", "/acme/certificates/none.example.test")

    assert (answer.status, answer.message) == (404, "Certificate for host none.example.test not found in storage")
    assert place.api("GET", "/acme/certificates/no%20name").status == 404


@pytest.mark.parametrize("query", ["", "size=7", "size=260", "size=1000", "search=stored.test&size=50"])
def test_pages_hold_every_certificate_once(place: Place, query: str) -> None:
    """Following ``next`` gives all of them, sorted, none of which has a common name; ``offset`` does the same."""
    hosts, offset, path = [], None, f"/acme/certificates?{query}"
    while path:
        page = place.api("GET", path).document
        hosts += [shown["host"] for shown in page["data"]]
        path, offset = page["next"], page["offset"]
        assert (path is None) == (offset is None)
        assert path is None or f"offset={offset}" in path

    assert hosts == sorted(set(hosts))
    assert {host for host in hosts if host.endswith(".stored.test")} == {
        *(f"s{number:03}.stored.test" for number in range(_STORED)),
        "old.stored.test",
    }


def test_invalid_only_leaves_out_what_clients_accept(place: Place) -> None:
    """With any value, as Kong has it."""
    for query in ("invalid_only=true", "invalid_only=1", "invalid_only"):
        data = place.api("GET", f"/acme/certificates?{query}").document["data"]
        assert [(shown["host"], shown["valid"], shown["state"]) for shown in data] == [
            ("old.stored.test", False, "expired")
        ]


@pytest.mark.parametrize(
    "query", ["size=0", "size=1001", "size=x", "size=", "state=fine", "sort=x", f"search={'a' * 254}", "search=%ff"]
)
def test_wrong_query_is_refused(place: Place, query: str) -> None:
    """400 with a sentence that names the parameter."""
    answer = place.api("GET", f"/acme/certificates?{query}")

    assert answer.status == 400
    assert answer.message.startswith(query.partition("=")[0])


def test_sanity_test_of_a_host_that_is_not_allowed(place: Place) -> None:
    """400 with Kong's words, and nothing is fetched."""
    answer = place.api.create("www.other.test", test_http_challenge_flow=True)

    problem = "host is not included in acme_domains or acme_certificates"
    assert (answer.status, answer.message) == (
        *(400, f"problem found running sanity check for www.other.test: {problem}"),
    )


def test_sanity_test_on_port_80(proxy: StartProxy) -> None:
    """It passes where this proxy answers on port 80, and says what is wrong where nothing does."""
    if not _may_listen_on_80():
        pytest.skip("port 80 is taken, or not for this user")
    running, api = with_api(proxy, start=False, acme_domains=["localhost", "nowhere.invalid"])
    running.http_port = 80
    running.start()

    passed = api.create("localhost", test_http_challenge_flow=True)
    form = api("POST", "/acme", "-d", "host=localhost", "-d", "test_http_challenge_flow=true")
    unknown = api.create("nowhere.invalid", test_http_challenge_flow=True)

    assert (passed.status, passed.message) == (200, "sanity test for host localhost passed")
    assert (form.status, form.message) == (200, "sanity test for host localhost passed")
    assert unknown.message == ("problem found running sanity check for nowhere.invalid: the name has no address in DNS")


def test_sanity_test_by_a_real_proxy(place: Place) -> None:
    """The way of the challenge through a real proxy, on another port than 80, leaves nothing behind."""
    challenges = Store(place.storage, RecordCipher(()))

    assert http_self_test.find_problem(challenges, ServerName("localhost"), port=place.running.http_port) is None
    assert place.storage.keys("challenges/") == []


class _Elsewhere(BaseHTTPRequestHandler):
    """Another server on port 80: it answers, or redirects."""

    status: ClassVar[int]

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Location", "http://localhost/")
        self.end_headers()
        self.wfile.write(b"Welcome to nginx!")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.mark.parametrize("status", [200, 404, 301])
def test_sanity_test_where_something_else_answers(place: Place, status: int) -> None:
    """The error shows the reply; a redirect is not followed."""
    elsewhere = type("Elsewhere", (_Elsewhere,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), elsewhere) as server:
        Thread(target=server.handle_request).start()
        found = http_self_test.find_problem(
            Store(place.storage, RecordCipher(())), ServerName("localhost"), port=server.server_port
        )

    assert found == f'unexpected response: "Welcome to nginx!", unexpected status code: {status}'


def test_sanity_test_where_nobody_listens(place: Place) -> None:
    """No connection is what it says."""
    port = free_port()

    found = http_self_test.find_problem(Store(place.storage, RecordCipher(())), ServerName("localhost"), port=port)

    assert found == "no connection"


def _may_listen_on_80() -> bool:
    with ExitStack() as stack:
        try:
            stack.enter_context(socket.create_server(("127.0.0.1", 80)))
        except OSError:
            return False
    return True
