"""The resources of the admin API: what a request asks for, and each status, document and bound of the replies.

A server on a port, with a manager in memory and a CA that issues at once. end_to_end has real ones.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.api.base_handler import HEADERS
from mitmproxy_acme.admin.api.handlers import AcmeHandler
from mitmproxy_acme.admin.api.server import AdminServer
from mitmproxy_acme.admin.context import AdminContext
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.metrics import Metrics
from mitmproxy_acme.config.admin_settings import AdminAddress
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock, FakeIssuer, make_certificate
from tests.servers.base import free_port

_URN = "urn:mitmproxy-acme:problem:"
_CERTIFICATES = "/acme/certificates"
_SECURITY = {name.title(): value for name, value in HEADERS.items()}
_JSON = {"Content-Type": "application/json"}
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Api:
    """One request for each call, by a connection of its own."""

    manager: Manager
    port: int

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = _NONE) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        given = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))}
        given |= headers
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        head, _, content = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
        first, *others = head.decode().split("\r\n")
        fields = (line.split(": ", 1) for line in others)
        return Reply(int(first.split()[1]), {name.title(): value for name, value in fields}, content)

    async def post(self, path: str, fields: object) -> Reply:
        return await self.ask("POST", path, json.dumps(fields).encode(), headers=_JSON)


type Serve = Callable[..., Api]


@pytest.fixture
async def serve(make_manager: MakeManager) -> AsyncIterator[Serve]:
    """Start the API of a manager with these options, which has read what is stored."""
    started = list[tuple[AdminServer, asyncio.Task[None]]]()

    def start(**options: Any) -> Api:
        manager, port = make_manager(**options), free_port()
        inventory = Inventory(manager)
        server = AdminServer(AdminContext.of(manager, inventory, Metrics()), AdminAddress("127.0.0.1", port))
        server.start()
        started.append((server, asyncio.get_running_loop().create_task(inventory.run())))
        return Api(manager, port)

    yield start
    for server, reading in started:
        reading.cancel()
        server.stop()
        await server.close()


@pytest.fixture
def store(memory: Memory) -> Callable[..., None]:
    """Store certificates for these names."""

    def put(*names: str, lifetime: float = 90 * DAY, begun: float = EPOCH) -> None:
        for name in names:
            certificate = make_certificate([name], now=begun, lifetime=lifetime)
            assert Store(memory, UNSEALED).replace(Store(memory, UNSEALED).slot(ServerName(name)), certificate)

    return put


async def test_certificate_is_created_in_kongs_words(serve: Serve, issuer: FakeIssuer) -> None:
    """Once; asked for again, it is left as it is."""
    api = serve()
    for _ in range(2):
        reply = await api.post("/acme", {"host": "a.example.test"})
        assert (reply.status, reply.document) == (201, {"message": "certificate for host a.example.test is created"})
    assert [subject.names for subject in issuer.orders] == [("a.example.test",)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "host must be provided and containing a single domain"),
        ({"host": ""}, "host must be provided and containing a single domain"),
        ({"host": 1}, "host must be provided and containing a single domain"),
        ({"host": "a b"}, "host must be provided and containing a single domain"),
        ({"host": "a.example.test:443"}, "port is not allowed in host"),
        ({"host": "a.example.test:x"}, "host must be provided and containing a single domain"),
        ({"host": "a.example.test", "test_http_challenge_flow": "yes"}, "test_http_challenge_flow is true or false"),
        ({"host": "a.example.test", "test_http_challenge_flow": 1}, "test_http_challenge_flow is true or false"),
        ([], "the body is JSON but not an object; send a JSON object"),
        ("host", "the body is JSON but not an object; send a JSON object"),
    ],
)
async def test_wrong_body_orders_nothing(serve: Serve, issuer: FakeIssuer, body: object, detail: str) -> None:
    """And the reply says what is wrong, under each of the names that clients read."""
    reply = await serve().post("/acme", body)
    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert reply.document == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": detail,
        "message": detail,
        "reason": detail,
        "retry_at": None,
        "stop": None,
    }
    assert issuer.orders == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 50_000])
async def test_body_that_is_no_json_is_refused(serve: Serve, body: bytes) -> None:
    reply = await serve().ask("POST", "/acme", body, headers=_JSON)
    assert (reply.status, reply.document["detail"]) == (400, "the body is not JSON; send a JSON object")


async def test_failed_order_says_why_and_when_to_repeat_it(serve: Serve, issuer: FakeIssuer) -> None:
    """Kong's words come first, and the reason is there without them; a GET shows the failure afterwards."""
    api, issuer.error = serve(), ChallengeFailed("no such host")
    reply = await api.post("/acme", {"host": "a.example.test"})
    assert reply.status == 500
    assert reply.headers["Retry-After"] == "60"
    assert reply.document == {
        "type": f"{_URN}challenge-failed",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "failed to update certificate: no such host",
        "message": "failed to update certificate: no such host",
        "reason": "no such host",
        "retry_at": "2027-01-15T08:01:00Z",
        "stop": None,
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("DELETE", "?reason=none"), ("POST", "/renew")],
)
@pytest.mark.parametrize("host", ["a.example.test", "no%20name"])
async def test_certificate_that_is_not_stored_is_not_found(serve: Serve, method: str, path: str, host: str) -> None:
    """In Kong's words; the reason says the same without them."""
    reply = await serve().ask(method, f"{_CERTIFICATES}/{host}{path}", headers=_JSON)
    name = host.replace("%20", " ")
    assert (reply.status, reply.document["type"]) == (404, f"{_URN}certificate-not-found")
    assert reply.document["detail"] == f"Certificate for host {name} not found in storage"
    assert reply.document["reason"] == f"no certificate is stored for {name}"


async def test_certificate_is_shown_renewed_and_deleted(
    serve: Serve, store: Callable[..., None], issuer: FakeIssuer
) -> None:
    """A renewal returns the new one; a deletion revokes only if it is asked to."""
    store("a.example.test", "b.example.test")
    api = serve()
    shown = await api.ask("GET", f"{_CERTIFICATES}/a.example.test")
    assert (shown.status, shown.document["data"]["host"]) == (200, "a.example.test")
    renewed = await api.ask("POST", f"{_CERTIFICATES}/a.example.test/renew", headers=_JSON)
    assert renewed.status == 200
    assert renewed.document["data"]["serial_number"] != shown.document["data"]["serial_number"]
    assert len(issuer.orders) == 1

    for name, query in (("a", "?reason=superseded"), ("b", "?reason=none")):
        reply = await api.ask("DELETE", f"{_CERTIFICATES}/{name}.example.test{query}")
        assert (reply.status, reply.body, reply.headers.get("Content-Type")) == (204, b"", None)
        assert (await api.ask("GET", f"{_CERTIFICATES}/{name}.example.test")).status == 404
    assert issuer.revoked == [("a.example.test", "superseded")]


async def test_stolen_key_is_replaced_and_the_reply_says_so(
    serve: Serve, store: Callable[..., None], issuer: FakeIssuer
) -> None:
    store("a.example.test")
    reply = await serve().ask("DELETE", f"{_CERTIFICATES}/a.example.test?reason=keyCompromise")
    assert reply.status == 200
    assert reply.document["message"].startswith("certificate for host a.example.test is ")
    assert (len(issuer.orders), issuer.revoked) == (1, [("a.example.test", "keyCompromise")])


async def test_unknown_reason_revokes_nothing(serve: Serve, store: Callable[..., None], issuer: FakeIssuer) -> None:
    store("a.example.test")
    reply = await serve().ask("DELETE", f"{_CERTIFICATES}/a.example.test?reason=whatever")
    assert (reply.status, issuer.revoked) == (400, [])
    assert reply.document["detail"].startswith("reason is one of unspecified, keyCompromise, ")


@pytest.mark.parametrize(
    ("query", "hosts"),
    [
        ("", ["a", "b", "late"]),
        ("?size=2", ["a", "b"]),
        ("?size=1000", ["a", "b", "late"]),
        ("?offset=a.example.test", ["b", "late"]),
        ("?search=%20LATE%20", ["late"]),
        (f"?search={'x' * 253}", []),
        ("?invalid_only", ["late"]),
        ("?state=expired", ["late"]),
        ("?state=expired&state=valid", ["a", "b", "late"]),
        ("?sort=expires_at", ["late", "a", "b"]),
    ],
)
async def test_certificates_are_selected_and_sorted(
    serve: Serve, store: Callable[..., None], query: str, hosts: list[str]
) -> None:
    """By host, or by what expires first; each bound is still within."""
    store("a.example.test", "b.example.test")
    store("late.example.test", begun=EPOCH - 2 * DAY, lifetime=DAY)
    reply = await serve().ask("GET", f"{_CERTIFICATES}{query}")
    assert reply.status == 200
    assert [row["host"].partition(".")[0] for row in reply.document["data"]] == hosts


async def test_next_page_is_a_url_with_the_same_selection(serve: Serve, store: Callable[..., None]) -> None:
    """Kong's clients follow it until it is null."""
    store("a.example.test", "b.example.test", "other.test")
    api = serve()
    first = (await api.ask("GET", f"{_CERTIFICATES}?size=1&search=example&sort=host")).document
    assert first["next"] == f"{_CERTIFICATES}?size=1&search=example&sort=host&offset=a.example.test"
    second = (await api.ask("GET", first["next"])).document
    assert [row["host"] for row in second["data"]] == ["b.example.test"]
    assert (second["next"], second["offset"]) == (None, None)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("size=0", "size is a whole number from 1 to 1000"),
        ("size=1001", "size is a whole number from 1 to 1000"),
        ("size=-1", "size is a whole number from 1 to 1000"),
        ("size=%D9%A1", "size is a whole number from 1 to 1000"),
        (f"size={'1' * 5_000}", "size is a whole number from 1 to 1000"),
        (f"search={'x' * 254}", "search is too long; write at most 253 characters"),
        ("state=good", "state is one of "),
        ("sort=size", "sort is one of "),
        ("search=%ff", "search is not UTF-8; percent-encode it as UTF-8"),
    ],
)
async def test_selection_out_of_its_bounds_is_refused(serve: Serve, query: str, detail: str) -> None:
    reply = await serve().ask("GET", f"{_CERTIFICATES}?{query}")
    assert reply.status == 400
    assert reply.document["detail"].startswith(detail)


async def test_renewal_of_what_is_due_begins(serve: Serve, store: Callable[..., None], clock: Clock) -> None:
    store("a.example.test")
    clock.advance(80 * DAY)
    api = serve()
    reply = await api.ask("PATCH", "/acme")
    assert (reply.status, reply.document) == (202, {"message": "Renewal process started successfully"})
    assert [check.id for check in api.manager.schedule.due_by(clock())] == ["a.example.test"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/acme"),
        ("POST", f"{_CERTIFICATES}/a.example.test/renew"),
        ("DELETE", f"{_CERTIFICATES}/a.example.test?reason=superseded"),
    ],
)
async def test_data_node_neither_orders_nor_revokes(serve: Serve, issuer: FakeIssuer, method: str, path: str) -> None:
    reply = await serve(acme_role="data").ask(method, path, headers=_JSON)
    assert (reply.status, reply.document["type"]) == (409, f"{_URN}wrong-node")
    assert (issuer.orders, issuer.revoked) == ([], [])


async def _lose(api: Api, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the node notice that its storage cannot be read; any other call of it ends the test."""

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the disk is gone")

    monkeypatch.setattr(memory, "get", fail)
    api.manager.health.trouble(StorageUnavailable("the disk is gone"))
    assert not await api.manager.health.check()
    for call in ("get", "put", "swap", "keys"):
        monkeypatch.setattr(memory, call, None)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/acme", {"host": "a.example.test"}),
        ("POST", "/acme", {"host": "a.example.test", "test_http_challenge_flow": True}),
        ("PATCH", "/acme", {}),
        ("GET", f"{_CERTIFICATES}/a.example.test", {}),
        ("POST", f"{_CERTIFICATES}/a.example.test/renew", {}),
        ("DELETE", f"{_CERTIFICATES}/a.example.test", {}),
        ("DELETE", f"{_CERTIFICATES}/a.example.test?reason=none", {}),
    ],
)
async def test_nothing_is_tried_while_the_storage_is_down(
    serve: Serve,
    memory: Memory,
    issuer: FakeIssuer,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: object,
) -> None:
    """The reply comes at once: no call waits for a storage that is known to be down."""
    api = serve()
    await _lose(api, memory, monkeypatch)
    reply = await api.ask(method, path, json.dumps(body).encode(), headers=_JSON)
    assert (reply.status, reply.document["type"]) == (503, f"{_URN}storage-unavailable")
    assert "the disk is gone" in reply.document["detail"]
    assert (issuer.orders, issuer.revoked) == ([], [])


async def test_health_follows_the_storage(serve: Serve) -> None:
    api = serve()
    healthy = await api.ask("GET", "/health")
    assert (healthy.status, healthy.document) == (200, {"status": "ok"})
    api.manager.health.trouble(StorageUnavailable("the disk is gone"))
    down = await api.ask("GET", "/health")
    assert (down.status, down.document) == (503, {"status": "storage is down"})


@pytest.mark.parametrize("path", ["/acme/status", "/acme/history", "/acme/traffic", "/metrics", "/openapi.json", "/"])
async def test_resource_is_read_by_get_and_head(serve: Serve, path: str) -> None:
    """With the headers that no page of another site can do anything with; HEAD has no body (RFC 9110 section 9.3.2)."""
    api = serve()
    read, head = await api.ask("GET", path), await api.ask("HEAD", path)
    assert (read.status, head.status, head.body) == (200, 200, b"")
    assert read.body
    assert _SECURITY.items() <= read.headers.items()
    assert not {"Server", "Etag"} & set(read.headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/acme", "PATCH, POST"),
        ("GET", "/acme", "PATCH, POST"),
        ("POST", _CERTIFICATES, "GET, HEAD"),
        ("POST", f"{_CERTIFICATES}/a.example.test", "DELETE, GET, HEAD"),
        ("HEAD", "/acme/events", "GET"),
    ],
)
async def test_other_method_is_refused_with_those_that_there_are(
    serve: Serve, method: str, path: str, allowed: str
) -> None:
    reply = await serve().ask(method, path, headers=_JSON)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
async def test_other_path_is_no_resource(serve: Serve, method: str) -> None:
    """Whatever the method is: there is no other to suggest."""
    reply = await serve().ask(method, "/acme/nothing", headers=_JSON)
    assert (reply.status, reply.headers.get("Allow")) == (404, None)
    assert reply.document["detail"] == "there is no such resource; /openapi.json lists them"


async def test_watcher_may_ask_for_the_history_only(serve: Serve) -> None:
    reply = await serve().ask("GET", "/acme/events?only=status")
    assert (reply.status, reply.document["detail"]) == (400, "only is history; leave it out for all documents")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "65537"}, 413),
        ({"Content-Length": "9" * 19}, 413),
        ({"Content-Type": "text/plain"}, 415),
        ({"Host": "rebound.test"}, 421),
        ({"Origin": "https://other.test"}, 403),
    ],
)
async def test_request_is_refused_by_its_head(
    serve: Serve, issuer: FakeIssuer, headers: dict[str, str], status: int
) -> None:
    """Before its body is read."""
    body = b'{"host": "a.example.test"}'
    given = {"Content-Type": "application/json"} | headers
    if status == 411:
        given["Content-Length"] = "0"
    reply = await serve().ask("POST", "/acme", body, headers=given)
    assert (reply.status, issuer.orders) == (status, [])
    assert _SECURITY.items() <= reply.headers.items()


async def test_body_of_the_greatest_length_is_read(serve: Serve) -> None:
    body = json.dumps({"host": "a.example.test"}).encode().ljust(65_536)
    assert (await serve().ask("POST", "/acme", body, headers=_JSON)).status == 201


async def test_token_is_needed_for_all_but_what_reveals_nothing(serve: Serve) -> None:
    """With the token a form may change something too: no other site can send that header."""
    api = serve(acme_admin_token="the-token-of-this-test")
    refused = await api.ask("GET", "/acme/status")
    assert (refused.status, refused.headers["Www-Authenticate"]) == (401, "Bearer")
    assert [(await api.ask("GET", path)).status for path in ("/health", "/openapi.json", "/")] == [200, 200, 200]
    given = {"Authorization": "Bearer the-token-of-this-test", "Host": "proxy.internal"}
    assert (await api.ask("GET", "/acme/status", headers=given)).status == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    test = b"host=a.example.test&test_http_challenge_flow=maybe"
    assert (await api.ask("POST", "/acme", test, headers=given | form)).status == 400
    assert (await api.ask("POST", "/acme", b"host=a.example.test", headers=given | form)).status == 201


async def test_self_test_is_of_the_name_and_not_of_its_kind_of_key(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a second certificate is no part of a host."""
    asked, said = list[str](), list[object]()

    class Handler:
        """As much of one as answers."""

        context = SimpleNamespace(manager=make_manager(acme_key_type=("ecdsa-p256", "rsa-2048")))

        def reply(self, status: int, document: object) -> None:
            said.append((status, document))

    def note(_: object, host: str) -> None:
        asked.append(host)

    monkeypatch.setattr("mitmproxy_acme.diagnostics.http_self_test.find_problem", note)
    handler: Any = Handler()
    id = handler.context.manager.config.id_for(ServerName("a.example.test"), "rsa-2048")
    assert id != "a.example.test"
    await AcmeHandler._test(handler, id)
    assert asked == ["a.example.test"]
    assert said == [(200, {"message": f"sanity test for host {id} passed"})]


def test_page_may_be_in_no_frame_and_load_nothing_else() -> None:
    """Another site could have a person click on what he does not see."""
    policy = HEADERS["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not any(word in HEADERS["Content-Security-Policy"] for word in ("unsafe", "*", "http"))
    assert (HEADERS["X-Content-Type-Options"], HEADERS["Cache-Control"]) == ("nosniff", "no-store")
