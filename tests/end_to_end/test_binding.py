"""External account binding that a CA gives for an e-mail address, as ZeroSSL does; its one resource is played here."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.ca.account_session import AccountSession
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.external_account_binding import request_binding
from mitmproxy_acme.ca.known_cas import CaInfo
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import IssuanceError, IssuerUnavailable, SettingsRefused
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.store import Store
from tests.servers.ca import ThrowawayCA
from tests.servers.gate import Gate
from tests.servers.pebble import ChallTestSrv, Pebble

_KID, _KEY = "a-key-identifier", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
_GIVEN = json.dumps({"success": True, "eab_kid": _KID, "eab_hmac_key": _KEY})


class Giver(ThreadingHTTPServer):
    """Gives a binding, or answers as it is told; keeps what was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Giving)
        own = ThrowawayCA(folder)
        self.ca_bundle, context = own.bundle, own.server_context()
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.status, self.answer = 200, _GIVEN
        self.asked: list[tuple[str, str]] = []
        self.url = f"https://localhost:{self.server_port}/eab"

    def trusted_with(self, ca_bundle: Path) -> str:
        """Return the path of a bundle that trusts another server too."""
        both = self.ca_bundle.with_name("both.pem")
        both.write_text(self.ca_bundle.read_text() + ca_bundle.read_text())
        return str(both)


class _Giving(BaseHTTPRequestHandler):
    server: Giver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def giver(tmp_path: Path) -> Iterator[Giver]:
    with Giver(tmp_path / "giver") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    with Pebble(dns, eab={_KID: _KEY}) as server:
        yield server


def enrol(ca: Pebble | Gate, giver: Giver, memory: Memory, key: str) -> str:
    """Return the account's URL at the CA, as a process has it that knows only the storage and the options."""

    async def run() -> str:
        threads = ThreadPools()
        bundle = giver.trusted_with(ca.ca_bundle)
        options = {"acme_ca": (ca.directory,), "acme_ca_bundle": bundle, "acme_tos_accepted": True}
        config = Config.from_options(options | {"acme_email": "me+acme@example.com"})
        store, authority = Store(memory, RecordCipher((key,))), CaInfo(ca.directory, binding_url=giver.url)

        async def look(client: Client) -> str:
            return client.account_uri

        try:
            return await AccountSession(config, config.issuers[0], store, threads, authority).call_with_account(look)
        finally:
            threads.close()

    return asyncio.run(run())


def test_binding_is_asked_for_once(ca: Pebble, giver: Giver, caplog: pytest.LogCaptureFixture) -> None:
    """By e-mail address, and kept with the account, sealed: a CA that forgets the account is shown it again."""
    caplog.set_level("INFO")
    memory, key = Memory(), Fernet.generate_key().decode()

    first = enrol(ca, giver, memory, key)
    assert enrol(ca, giver, memory, key) == first

    assert giver.asked == [("application/x-www-form-urlencoded", "email=me%2Bacme%40example.com")]
    (record,) = (memory.get(name) or b"" for name in memory.keys("accounts/"))
    for text in (record.decode(), caplog.text):
        assert _KEY not in text
    account = Store(memory, RecordCipher((key,))).account(ca.directory)
    assert account is not None
    assert (account.eab_kid, account.eab_hmac_key) == (_KID, _KEY)
    assert _KEY not in repr(account)


def test_binding_that_was_given_before_the_ca_failed_is_used(ca: Pebble, giver: Giver, tmp_path: Path) -> None:
    """What was given is not asked for again only because no account came of it yet."""
    memory, key = Memory(), Fernet.generate_key().decode()
    with Gate(ca, tmp_path) as gate:
        gate.answer("/sign-me-up", 500)
        with pytest.raises(IssuerUnavailable):
            enrol(gate, giver, memory, key)
        gate.open()
        assert enrol(gate, giver, memory, key)
    assert len(giver.asked) == 1


def test_binding_that_the_ca_refuses_is_given_up(ca: Pebble, giver: Giver) -> None:
    """The next attempt asks for another, and the account's key stays the same."""
    memory, key = Memory(), Fernet.generate_key().decode()
    store = Store(memory, RecordCipher((key,)))
    giver.answer = _GIVEN.replace(_KID, "not-this-one")
    with pytest.raises(SettingsRefused):
        enrol(ca, giver, memory, key)
    before = store.account(ca.directory)
    giver.answer = _GIVEN
    assert enrol(ca, giver, memory, key)
    after = store.account(ca.directory)
    assert before is not None
    assert after is not None
    assert (before.key, before.eab_kid, after.eab_kid) == (after.key, "", _KID)


@pytest.mark.parametrize(
    ("status", "answer", "error", "said"),
    [
        (200, '{"success": false, "error": {"code": 2900, "type": "invalid_email"}}', SettingsRefused, "invalid_email"),
        (500, "<h1>no</h1>", IssuerUnavailable, "answered HTTP 500 to the request for an external account binding"),
        (429, "{}", IssuerUnavailable, "answered HTTP 429"),
        (200, '{"success": true, "eab_kid": 7, "eab_hmac_key": "k"}', IssuerUnavailable, "and gave none"),
        (200, '{"success": false, "error": {"type": "a page of\\ntext"}}', IssuerUnavailable, "and gave none"),
        (200, '{"success": false, "error": {"type": "a\\u001b[2J"}}', IssuerUnavailable, "and gave none"),
        (200, "[]", IssuerUnavailable, "and gave none"),
        (302, "", IssuerUnavailable, "answered HTTP 302"),
    ],
)
def test_no_binding(giver: Giver, status: int, answer: str, error: type[IssuanceError], said: str) -> None:
    """An address that is refused is the options' fault, and anything else the CA's, whose Retry-After is told."""
    giver.status, giver.answer = status, answer
    with pytest.raises(error, match=said) as caught:
        request_binding("zerossl", giver.url, "me@example.com", 5.0, str(giver.ca_bundle))
    assert caught.value.retry_after == (7.0 if error is IssuerUnavailable else None)


def test_nobody_answers(giver: Giver) -> None:
    """It is the CA that cannot be reached."""
    giver.shutdown()
    giver.server_close()
    with pytest.raises(IssuerUnavailable, match="zerossl cannot be reached: no connection"):
        request_binding("zerossl", giver.url, "me@example.com", 5.0, str(giver.ca_bundle))


def test_no_binding_without_tls() -> None:
    """What is given is a secret."""
    with pytest.raises(IssuerUnavailable, match="zerossl cannot be reached: its URL is not https://"):
        request_binding("zerossl", "http://localhost:1/eab", "me@example.com", 5.0)
