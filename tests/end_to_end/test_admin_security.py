"""The admin API tells strangers nothing, does nothing for them, and cannot be used to slow the proxy down."""

import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from tests.end_to_end.admin import TOKEN, Answer, Api, with_api
from tests.end_to_end.client import handshake
from tests.end_to_end.conftest import StartProxy
from tests.end_to_end.test_secrecy import shapes_of
from tests.servers.base import fetch, free_port, started
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv
from tests.servers.redis import Redis

type FreshName = Callable[[], str]

_JSON = ("-H", "Content-Type: application/json")
_MOST_CONNECTIONS = 256
_PASSWORD = "hunter2-of-the-storage"


@pytest.fixture
def open_api(proxy: StartProxy) -> Api:
    """An API on loopback, without a token."""
    return with_api(proxy, token="")[1]


def test_without_token_only_this_machines_own_may_ask(open_api: Api) -> None:
    """A Host from DNS rebinding is refused for every request; curl on this machine is not."""
    for path in ("/acme/status", "/acme/certificates", "/health", "/", "/openapi.json"):
        assert open_api("GET", path).status == 200
        assert open_api("GET", path, "-H", f"Host: localhost:{open_api.port}").status == 200
        assert open_api("GET", path, "-H", f"Host: evil.test:{open_api.port}").status == 421
        assert open_api("GET", path, "-H", "Host: 10.0.0.1").status == 421


def test_without_token_no_other_web_site_changes_anything(open_api: Api) -> None:
    """What a browser sends for another site is refused: its Origin, its Sec-Fetch-Site, its form, its plain POST."""
    host = json.dumps({"host": "a.other.test"})
    own = f"http://127.0.0.1:{open_api.port}"
    refused = {
        ("-H", "Origin: https://evil.test", *_JSON): 403,
        ("-H", "Origin: null", *_JSON): 403,
        ("-H", "Origin: http://[", *_JSON): 403,
        ("-H", "Sec-Fetch-Site: cross-site", *_JSON): 403,
        ("-H", "Sec-Fetch-Site: same-site", *_JSON): 403,
        ("-H", "Content-Type: text/plain"): 415,
        ("-H", "Content-Type: application/x-www-form-urlencoded"): 415,
        ("-H", "Origin: " + own, "-H", "Sec-Fetch-Site: same-origin", *_JSON): 400,  # that host may have none
        _JSON: 400,
    }

    statuses = {words: open_api("POST", "/acme", *words, "-d", host).status for words in refused}

    assert statuses == refused
    assert open_api("DELETE", "/acme/certificates/a.test", "-H", "Origin: https://evil.test").status == 403
    assert open_api("PATCH", "/acme", "-H", "Sec-Fetch-Site: cross-site").status == 403


_NOT_THE_TOKEN = (
    "X: none",
    "Authorization: Bearer wrong-but-as-long-as-it",
    f"Authorization: Basic {TOKEN}",
    f"Authorization: Bearer {TOKEN}x",
    "Authorization: Bearer",
    "Authorization: Bearer tökén-that-is-no-ascii",
    "Kong-Admin-Token: wrong",
    "Kong-Admin-Token;",
)


def test_wrong_token_is_refused(proxy: StartProxy) -> None:
    """401 with a problem document and the scheme, for reads and changes; public resources stay public."""
    running, api = with_api(proxy)
    stranger = Api(api.port, token="")

    for header in _NOT_THE_TOKEN:
        for method, path in (("GET", "/acme/status"), ("GET", "/acme/events"), ("PATCH", "/acme"), ("POST", "/acme")):
            answer = stranger(method, path, "-H", header)
            assert (answer.status, answer.document["title"]) == (401, "Unauthorized"), header
            assert "www-authenticate: bearer" in answer.headers.lower()
        assert stranger("GET", "/health", "-H", header).status == 200
    assert "Traceback" not in running.log.read_text()


def test_no_reply_holds_a_secret_or_lets_other_sites_read(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName, tmp_path: Path
) -> None:
    """Token, password, private keys: none in any reply or the log, with the storage up and down; no CORS header."""
    name, broken, failing = fresh_name(), fresh_name(), fresh_name()
    dns.set_servfail(failing)
    with started(Redis(password=_PASSWORD)) as redis:
        url = f"redis://:env:PW@127.0.0.1:{redis.port}/0"
        running, api = with_api(proxy, start=False, acme_storage=url, termlog_verbosity="debug")
        running.environment["PW"] = _PASSWORD
        running.start()
        answers = [api.create(name), api.create(failing), *_ask_everything(api, name)]
        place = open_storage(url.replace("env:PW", _PASSWORD), default_folder=tmp_path)
        record = place.get(f"certificates/{name}")
        account = place.get(place.keys("accounts/")[0])
        assert record
        assert account
        place.put(f"certificates/{broken}", record[:-30])
        answers += _ask_everything(api, broken)
        redis.kill()
        answers += _ask_everything(api, name)
        answers += _ask_everything(Api(api.port, token=""), name)

    secrets = {TOKEN, _PASSWORD, "PRIVATE KEY", json.loads(json.loads(account)["key"])["d"], *_key_of(record)}
    said = "\n".join(f"{answer.headers}\n{answer.text}" for answer in answers)
    assert {answer.status for answer in answers} >= {200, 201, 400, 401, 404, 405, 500, 503}
    assert [secret for secret in secrets if secret in said] == []
    assert [secret for secret in secrets if secret in running.log.read_text()] == []
    assert "access-control-" not in said.lower()
    assert said.count("default-src 'none'") == len(answers)


def _ask_everything(api: Api, name: str) -> Iterator[Answer]:
    yield from (api("GET", path) for path in ("/", "/page.js", "/health", "/openapi.json", "/nothing"))
    yield from (api("GET", path) for path in ("/acme", "/acme/status", f"/acme/certificates/{name}"))
    yield from (api("GET", f"/acme/certificates?{query}") for query in ("", "invalid_only", "size=x"))
    yield from (api(method, "/acme", "-H", "Origin: https://evil.test") for method in ("OPTIONS", "PATCH"))
    yield api.create("www.other.test")
    yield api("POST", f"/acme/certificates/{name}/renew", *_JSON)
    yield api("DELETE", f"/acme/certificates/{name}?reason=boredom")
    yield api("POST", "/acme", *_JSON, "-d", f'{{"host": "{TOKEN[:3]}')


def _key_of(record: bytes) -> set[str]:
    return shapes_of(Certificate.from_record(ServerName("any"), record).key)


def test_address_that_is_taken_ends_the_start(proxy: StartProxy) -> None:
    """With one sentence that says what to do, and no traceback."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        running = proxy(start=False, acme_admin_listen=f"127.0.0.1:{port}")

        log = running.fail_to_start()

    assert f"acme_admin_listen: cannot listen on 127.0.0.1:{port} (Address already in use); choose another port" in log
    assert "Traceback" not in log


_HEADERS = "Authorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_clients_of_the_proxy_do_not_reach_the_admin_api(proxy: StartProxy, fresh_name: FreshName) -> None:
    """However they spell its address, and though they have the token: nothing is answered, and nothing revoked."""
    running, api = with_api(proxy, start=False)
    regular, socks = free_port(), free_port()
    running.extra_arguments += ["--mode", f"regular@127.0.0.1:{regular}", "--mode", f"socks5@127.0.0.1:{socks}"]
    running.start()
    name = fresh_name()
    assert api.create(name).status == 201
    headers = _HEADERS.format(token=TOKEN)
    path = f"/acme/certificates/{name}"
    answers = []
    for host in (
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
    ):
        at = f"{host}:{api.port}"
        request = f"DELETE http://{at}{path} HTTP/1.1\r\nHost: {at}\r\n{headers}"
        answers.append(_sent(regular, request.encode()))
        tunnel = f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n"
        answers.append(_sent(regular, tunnel.encode(), f"DELETE {path} HTTP/1.1\r\nHost: {at}\r\n{headers}".encode()))
    where = api.port.to_bytes(2)
    for destination in (b"\1\x7f\0\0\1", b"\3\x09localhost"):
        request = f"DELETE {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
        answers.append(_sent(socks, b"\5\1\0", b"\5\1\0" + destination + where, request.encode()))

    assert [answer for answer in answers if b" 204 " in answer or b"acme" in answer.lower()] == []
    assert b" 502 " in answers[0]
    assert api.show(name)["host"] == name
    assert running.log_text().count("asked the proxy for its admin API and was refused") == 1


def _sent(port: int, *messages: bytes) -> bytes:
    """Send each message when something came for the one before; return all that came until the end."""
    came = b""
    with socket.create_connection(("127.0.0.1", port), 10) as client, suppress(OSError):
        for message in messages:
            client.sendall(message)
            came += client.recv(65_536)
        while more := client.recv(65_536):
            came += more
    return came


def test_forwarding_mode_without_a_token_ends_the_start(proxy: StartProxy) -> None:
    """With one sentence that says what to do."""
    running, _ = with_api(proxy, token="", start=False)
    running.extra_arguments += ["--mode", f"regular@127.0.0.1:{free_port()}"]

    log = running.fail_to_start()

    assert "acme_admin_token: clients of mode regular@" in log
    assert "Traceback" not in log


_GET, _POST = b"GET /acme/certificates HTTP/1.1\r\nHost: localhost\r\n", b"POST /acme HTTP/1.1\r\nHost: localhost\r\n"
_SENT_AS_JSON = _POST + b"Content-Type: application/json\r\n"
_JUNK = {
    "half a request": b"GET /acme/status HTTP/1.1\r\nHost: local",
    "100 KB of headers": _GET + b"X-Long: " + b"x" * 100_000,
    "many headers": _GET + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)),
    "garbage": os.urandom(4_096),
    "TLS": bytes.fromhex("16030100c8010000c40303") + os.urandom(200),
    "another method": b"BREW /acme HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a huge body": _SENT_AS_JSON + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 1_000_000,
    "endless chunks": _SENT_AS_JSON + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 99_999,
    "a body that does not come": _SENT_AS_JSON + b"Content-Length: 1000\r\n\r\n{",
    "no such form": _POST + b"Content-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\nx",
    "packed": _SENT_AS_JSON + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    "deep JSON": _SENT_AS_JSON + b"Content-Length: 60000\r\n\r\n" + b"[" * 60_000,
    "one after the other": (_GET + b"\r\n") * 500,
    "no such line": b"\r\n\r\n\0\0\0 / \r\nHTTP/9.9\r\n\r\n",
}


def test_flood_of_junk_does_not_touch_the_proxy(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """While strangers send what they like, every handshake succeeds; memory stays, and nothing of it is logged."""
    running, api = with_api(proxy, token="")
    name = fresh_name()
    assert api.create(name).status == 201
    memory, said = _memory_of(running), len(running.log_text())
    with _flood(api.port):
        served = [handshake(running.https_port, name, root).names for _ in range(40)]

    assert served == [[name]] * 40
    assert _memory_of(running) < memory + 80_000
    assert api.show(name)["host"] == name
    log = running.log_text()[said:]
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if "tornado" in line or "admin API" in line] == []


def test_idle_connections_leave_room(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """However many are left open, the API answers, and the proxy keeps the files that it needs."""
    running, api = with_api(proxy, token="")
    name = fresh_name()
    assert api.create(name).status == 201
    with ExitStack() as stack:
        for _ in range(2 * _MOST_CONNECTIONS):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", api.port), 5))
            with suppress(OSError):
                idle.sendall(_JUNK["half a request"])
        served = [handshake(running.https_port, name, root).names for _ in range(10)]
        files = len(os.listdir(f"/proc/{running.pid}/fd")) if Path("/proc/self/fd").exists() else 0
        answers = [fetch(f"{api.url}{path}").status for path in ("/health", "/metrics", "/acme/status")]

    assert served == [[name]] * 10
    assert files < _MOST_CONNECTIONS + 100
    assert answers == [200] * 3


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (("-H", "Transfer-Encoding: chunked", "-d", "{}"), 411, "send the body with its Content-Length"),
        (("-d", "x" * 70_000), 413, "send at most 65536 bytes"),
    ],
)
def test_body_that_is_not_read_is_told(open_api: Api, sent: tuple[str, ...], status: int, said: str) -> None:
    """Its sender gets the sentence before the connection is closed, and what it then sends is not taken for more."""
    refused = open_api("POST", "/acme", *_JSON, *sent)

    assert (refused.status, said in refused.message) == (status, True)
    assert "content-type: application/problem+json" in refused.headers.lower()
    assert "connection: close" in refused.headers.lower()
    assert "default-src 'none'" in refused.headers


def test_long_body_does_not_hide_the_answer(open_api: Api, tmp_path: Path) -> None:
    """However much more is under way when it is refused."""
    (tmp_path / "long").write_bytes(b"x" * 600_000)

    for _ in range(10):
        refused = open_api("POST", "/acme", *_JSON, "-H", "Expect:", "--data-binary", f"@{tmp_path / 'long'}")
        assert refused.status == 413


@contextmanager
def _flood(port: int) -> Iterator[None]:
    """Send each kind of junk, wait briefly for a reply, leave; again and again, four at a time."""
    over, junks = threading.Event(), itertools.cycle(_JUNK.values())

    def send() -> None:
        while not over.is_set():
            junk = next(junks)
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5) as stranger:
                stranger.sendall(junk)
                stranger.recv(65_536)

    strangers = [threading.Thread(target=send) for _ in range(4)]
    for stranger in strangers:
        stranger.start()
    try:
        yield
    finally:
        over.set()
        for stranger in strangers:
            stranger.join()


def _memory_of(running: Mitmdump) -> int:
    """Return the resident memory in KiB; 0 where there is no /proc."""
    status = Path(f"/proc/{running.pid}/status")
    if not status.exists():
        return 0
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
