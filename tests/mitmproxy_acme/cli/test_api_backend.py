"""The backend of the admin API: what counts as a proxy, and what its replies mean. Real proxies are in end_to_end."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_acme.admin import problems
from mitmproxy_acme.admin.api.schemas import EXAMPLE_CERTIFICATE
from mitmproxy_acme.admin.certificate_service import Outcome
from mitmproxy_acme.admin.documents import logged_event
from mitmproxy_acme.admin.problems import HttpError, ProblemKind
from mitmproxy_acme.cli import open_backend
from mitmproxy_acme.cli.api_backend import ApiBackend
from mitmproxy_acme.config.admin_settings import AdminAddress, AdminSocket
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError, NotFound, RequestFailed
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.event_log import EventKind, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from tests.mitmproxy_acme.fakes import EPOCH
from tests.servers.base import free_port

type Answer = tuple[int, str, Any]

CA = {"directory": "https://ca.test/dir", "state": "ok", "error": None, "retry_at": None}
STATUS: dict[str, Any] = {"node": {"role": "standalone"}, "cas": [CA], "failing": []}
NAME = ServerName("a.test")


class Proxy(ThreadingHTTPServer):
    """Answers each request as a test says, in turn with several answers, and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        self.authorization: str | None = None
        self.address = AdminAddress("127.0.0.1", self.server_port)
        self.gives("GET /acme/status", STATUS)

    def fails(self, request: str, status: int, message: str) -> None:
        self.answers[request] = [(status, "application/problem+json", {"message": message})]

    def replies(self, request: str, error: HttpError) -> None:
        self.answers[request] = [(error.problem.status, "application/problem+json", error.problem.document())]

    def gives(self, request: str, *documents: object, status: int = 200) -> None:
        self.answers[request] = [(status, "application/json", document) for document in documents]


class _Answering(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {self.path.partition('?')[0]}"
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.authorization = self.headers.get("Authorization")
        answers = self.server.answers.get(request, [(404, "application/problem+json", {"message": "none"})])
        status, kind, document = answers.pop(0) if len(answers) > 1 else answers[0]
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(proxy: Proxy) -> Iterator[ApiBackend]:
    connected = ApiBackend.connect(proxy.address, "the-token")
    assert connected is not None
    yield connected
    connected._session.close()


def document(fingerprint: str, ca: str = "https://ca.test/dir") -> dict[str, Any]:
    return {"data": EXAMPLE_CERTIFICATE | {"host": NAME, "fingerprint_sha256": fingerprint, "ca": ca}}


def test_nobody_listens() -> None:
    """There is no such backend, and no error."""
    assert ApiBackend.connect(AdminAddress("127.0.0.1", free_port()), "") is None


def test_token_goes_along(proxy: Proxy, remote: ApiBackend) -> None:
    """As a bearer token, which the description does not show."""
    assert proxy.authorization == "Bearer the-token"
    assert remote.description == f"using the admin API of the proxy at http://127.0.0.1:{proxy.server_port}"


def test_addresses_that_mean_all_are_asked_on_loopback(proxy: Proxy) -> None:
    """A proxy may listen on 0.0.0.0, to which no client can connect."""
    connected = ApiBackend.connect(AdminAddress("0.0.0.0", proxy.server_port), "")
    assert connected is not None
    assert "127.0.0.1" in connected.description
    connected._session.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, "application/problem+json", {"message": "a token is needed"}), "acme_admin_token: the proxy at"),
        ((421, "application/problem+json", {"message": "wrong host"}), "refuses the request: wrong host"),
        ((401, "text/html", b"<html>"), "is not the admin API of a proxy"),
        ((200, "text/html", b"<html>"), "is not the admin API of a proxy"),
        ((200, "application/json", {"version": 3}), "is not the admin API of a proxy"),
        ((200, "application/json", []), "is not the admin API of a proxy"),
        ((200, "application/json", STATUS | {"cas": [CA, {}]}), "is not the admin API of a proxy"),
        ((200, "application/json", STATUS | {"failing": None}), "is not the admin API of a proxy"),
        ((302, "text/html", b""), "is not the admin API of a proxy"),
    ],
)
def test_something_else_listens(proxy: Proxy, answer: Answer, said: str) -> None:
    """It is one sentence that names the option."""
    proxy.answers["GET /acme/status"] = [answer]
    with pytest.raises(ConfigError, match="acme_admin_") as error:
        ApiBackend.connect(proxy.address, "")
    assert said in str(error.value)


async def test_reply_that_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service that goes on sending, a letter now and then, is given up all the same."""
    monkeypatch.setattr(open_backend, "_ANSWERS_WITHIN", 0.5)
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while not over.wait(0.1):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        config = Config.from_options({"acme_admin_listen": f"127.0.0.1:{listening.getsockname()[1]}"})
        with pytest.raises(ConfigError, match="is not the admin API of a proxy"):
            async with open_backend.open_backend(config, tmp_path):
                pass
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(None, "11", Outcome.OBTAINED), ("11", "22", Outcome.OBTAINED), ("11", "11", Outcome.STORED)],
)
async def test_issued_or_stored(
    proxy: Proxy, remote: ApiBackend, before: str | None, after: str, outcome: Outcome
) -> None:
    """What is the same as before was stored already."""
    request = f"GET /acme/certificates/{NAME}"
    proxy.gives("POST /acme", {"message": "created"}, status=201)
    proxy.gives(request, document(after))
    first = (200, "application/json", document(before)) if before else (404, "text/plain", b"")
    proxy.answers[request].insert(0, first)
    result = await remote.issue(NAME)
    assert (result.outcome, result.document) == (outcome, document(after)["data"])


@pytest.mark.parametrize(
    ("kind", "limited", "unvalidated"),
    [
        (problems.NAME_NOT_ALLOWED, False, False),
        (problems.CHALLENGE_FAILED, False, True),
        (problems.RATE_LIMITED, True, False),
        (problems.CA_LIMIT_REACHED, True, False),
        (problems.BACKING_OFF, False, False),
    ],
)
async def test_problem_type_decides(
    proxy: Proxy, remote: ApiBackend, kind: ProblemKind, limited: bool, unvalidated: bool
) -> None:
    """The texts decide nothing; the reason has none of Kong's words, and the time is the proxy's."""
    proxy.replies("POST /acme", HttpError.of(kind, "Kong: could not validate", reason="x rateLimited", retry_at=EPOCH))
    result = await remote.issue(NAME)
    assert (result.outcome, result.reason, result.stop) == (Outcome.FAILED, "x rateLimited", "")
    assert (result.limited, result.unvalidated) == (limited, unvalidated)
    assert result.retry_at == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize("status", [409, 503])
async def test_node_or_storage_that_fails_every_name(proxy: Proxy, remote: ApiBackend, status: int) -> None:
    """No other name can succeed, for any kind of problem."""
    proxy.fails("POST /acme", status, "storage is down")
    result = await remote.issue(NAME)
    assert (result.reason, result.stop) == ("storage is down", "storage is down")


async def test_whole_ca_backs_off(proxy: Proxy, remote: ApiBackend) -> None:
    """The problem says that no other certificate can be obtained either."""
    proxy.replies("POST /acme", HttpError.of(problems.CA_UNAVAILABLE, "no", retry_at=EPOCH, stop="the CA is down"))
    result = await remote.issue(NAME)
    assert (result.stop, result.retry_at) == ("the CA is down", "2027-01-15T08:00:00Z")


@pytest.mark.parametrize("reply", [b"<html>", [], {"reason": 1, "retry_at": "soon"}, {"retry_at": 7}])
async def test_failure_without_a_problem_document(proxy: Proxy, remote: ApiBackend, reply: object) -> None:
    """Something in between replied: the result is a failure all the same."""
    proxy.answers["POST /acme"] = [(502, "text/html", reply)]
    result = await remote.issue(NAME)
    assert (result.outcome, result.retry_at, result.stop) == (Outcome.FAILED, None, "")
    assert result.reason in ("HTTP 502", "1")


async def test_all_pages_are_read(proxy: Proxy, remote: ApiBackend) -> None:
    """Until there is no further offset."""
    of_a, of_b = (EXAMPLE_CERTIFICATE | {"host": host} for host in "ab")
    first, last = {"data": [of_a], "offset": "YQ=="}, {"data": [of_b], "offset": None}
    proxy.gives("GET /acme/certificates", first, last)
    assert [found["host"] async for found in remote.select(search="x")] == ["a", "b"]
    assert proxy.asked[-1] == "GET /acme/certificates?size=1000&search=x&offset=YQ%3D%3D"


@pytest.mark.parametrize("reply", [{}, [], {"data": [{"host": NAME}], "offset": None}, {"data": {"host": NAME}}])
async def test_replies_of_another_form(proxy: Proxy, remote: ApiBackend, reply: object) -> None:
    """A proxy of another version, or a server in between, gives one sentence for every request."""
    path = f"/acme/certificates/{NAME}"
    for request in ("GET /acme/certificates", f"GET {path}", f"POST {path}/renew"):
        proxy.gives(request, reply)
    with pytest.raises(RequestFailed, match="in a form that this command does not know"):
        _ = [found async for found in remote.select()]
    for act in (remote.get, remote.issue, remote.renew):
        with pytest.raises(RequestFailed, match="in a form that this command does not know"):
            await act(NAME)


async def test_renewal_that_something_else_answers(proxy: Proxy, remote: ApiBackend) -> None:
    """A page of HTML with 200 is no certificate."""
    proxy.answers[f"POST /acme/certificates/{NAME}/renew"] = [(200, "text/html", b"<html>")]
    with pytest.raises(RequestFailed, match="is not JSON"):
        await remote.renew(NAME)


async def test_certificate_that_is_not_stored(proxy: Proxy, remote: ApiBackend) -> None:
    """The reason of the problem is passed on, without Kong's words."""
    error = HttpError.of(problems.CERTIFICATE_NOT_FOUND, "not found in storage", reason="none is stored: no route")
    proxy.replies(f"GET /acme/certificates/{NAME}", error)
    with pytest.raises(NotFound, match=r"^none is stored: no route$"):
        await remote.get(NAME)


async def test_proxy_that_goes_away(proxy: Proxy, remote: ApiBackend) -> None:
    """Every request gives one sentence."""
    proxy.shutdown()
    proxy.server_close()
    remote._session.close()
    with pytest.raises(RequestFailed, match="does not answer any more"):
        await remote.revoke(NAME, "superseded")


async def test_revocation_that_fails(proxy: Proxy, remote: ApiBackend) -> None:
    """The proxy's sentence is passed on."""
    proxy.fails(f"DELETE /acme/certificates/{NAME}", 500, "the CA is down")
    with pytest.raises(RequestFailed, match="says the CA is down"):
        await remote.revoke(NAME, "superseded")
    assert proxy.asked[-1] == f"DELETE /acme/certificates/{NAME}?reason=superseded"


def test_nobody_listens_at_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, or the file of a killed proxy: there is no such backend, and no error."""
    monkeypatch.chdir(tmp_path)
    assert ApiBackend.connect(AdminSocket("admin.sock"), "") is None
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind("admin.sock")
    assert ApiBackend.connect(AdminSocket("admin.sock"), "") is None


def test_unix_socket_that_this_user_may_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and the storage is not used instead; root may use any socket, so the system's answer is faked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("admin.sock")
        with pytest.raises(ConfigError, match=r"acme_admin_listen: this user may not use unix:admin\.sock; "):
            ApiBackend.connect(AdminSocket("admin.sock"), "")


EVENT = logged_event(LoggedEvent(EventId(1_800_000_000_000, 0, "aa"), EventKind.OBTAINED, "a.test"))


def streams(proxy: Proxy, *lines: str, kind: str = "text/event-stream") -> None:
    proxy.answers["GET /acme/events"] = [(200, kind, "\n".join(lines).encode())]


def test_events_are_read_from_the_stream(proxy: Proxy, remote: ApiBackend) -> None:
    """Signs of life are none; when the stream ends, that is said."""
    data = json.dumps({"data": [EVENT]})
    streams(proxy, ": alive", "", "event: history", f"data: {data}", "", "event: history", 'data: {"data": []}', "", "")
    histories = remote.histories()
    assert [next(histories), next(histories)] == [[EVENT], []]
    with pytest.raises(RequestFailed, match="does not answer any more"):
        next(histories)
    assert "GET /acme/events?only=history" in proxy.asked


@pytest.mark.parametrize("data", ["", "{", "[]", "{}", '{"data": 1}', '{"data": [{"id": "1"}]}', "[" * 60_000])
def test_events_of_another_form(proxy: Proxy, remote: ApiBackend, data: str) -> None:
    """Of another release, or of something else."""
    streams(proxy, "event: history", f"data: {data}", "", "")
    with pytest.raises(RequestFailed, match="in a form that this command does not know"):
        next(remote.histories())


def test_events_are_refused(proxy: Proxy, remote: ApiBackend) -> None:
    """A wrong token stays wrong; anything else may pass."""
    proxy.fails("GET /acme/events", 401, "no")
    with pytest.raises(ConfigError, match=r"acme_admin_token: the proxy at .* refuses the token"):
        next(remote.histories())
    proxy.fails("GET /acme/events", 503, "too many clients watch the status")
    with pytest.raises(RequestFailed, match="says too many clients watch the status"):
        next(remote.histories())
