"""What a CA replies, or who has taken its place: status, headers and bodies of every request that is sent to it.

An input is a line of JSON with the call, the status and the headers of the reply, and then the reply's body.
"""

import json
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import josepy as jose
import requests
from acme import messages
from cryptography.hazmat.primitives.asymmetric import ec
from requests.structures import CaseInsensitiveDict

from acme_storage.memory import Memory
from mitmproxy_acme.ca import challenges, external_account_binding, problems
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.http import network
from mitmproxy_acme.ca.http.allowed_hosts import AllowedHosts, UrlRefused, is_url, origin
from mitmproxy_acme.ca.http.transport import Session
from mitmproxy_acme.ca.reply_checks import require_undecided
from mitmproxy_acme.core.errors import IssuanceError, IssuerUnavailable
from mitmproxy_acme.core.renewal import RenewalInfo
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule
from tests.mitmproxy_acme.fakes import EPOCH

from ..mutators import behind_line, json_mutator, of_line, text_mutator, within
from ..target import Target, require_message
from .ca_examples import CERTIFICATE, DIRECTORY, NAMES, TYPES, URL, WORDS, replies, urls, waits

_LONGEST_MESSAGE = 2_500


class _Reply(Session):
    """Gives one reply to each request. Nonces come as from any CA, so that requests can be sent at all."""

    def __init__(self) -> None:
        super().__init__()
        self.next: requests.Response = _response(200, {}, b"")

    def request(self, method: str, url: str, **_: Any) -> requests.Response:
        if method == "HEAD":
            return _response(200, {"Replay-Nonce": "bm9uY2U"}, b"")
        return self.next


def _response(status: int, headers: dict[str, str], body: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code, response.encoding, response._content = status, "utf-8", body
    response.headers = CaseInsensitiveDict(headers)
    response.url = f"{URL}/x"
    return response


@cache
def _key() -> jose.JWK:
    return jose.JWKEC(key=ec.derive_private_key(2, ec.SECP256R1()))


def _client(reply: _Reply) -> Client:
    """Return a client that has connected to a good directory."""
    made = Client.__new__(Client)
    made.__dict__ |= _connected().__dict__
    made._lost = ""
    made.net.session = reply  # type: ignore[assignment]  # as in Network
    return made


@cache
def _connected() -> Client:
    reply = _Reply()
    reply.next = _response(200, {}, json.dumps(DIRECTORY).encode())
    with _sessions(reply):
        client = Client.connect("ca", f"{URL}/directory", _key(), "")
    client.use(f"{URL}/account/1")
    return client


_MODULES = (network, external_account_binding)


class _sessions:
    """Has new networks use a session of ours."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        for module in _MODULES:
            vars(module)["Session"] = lambda: self._session

    def __exit__(self, *_: object) -> None:
        for module in _MODULES:
            vars(module)["Session"] = Session


def _connect(reply: _Reply) -> None:
    with _sessions(reply):
        client = Client.connect("ca", f"{URL}/directory", _key(), "")
    assert all(name.isprintable() for name in client.profiles)
    client.use(f"{URL}/account/1")
    assert client.changes_keys in (True, False)


def _register(reply: _Reply) -> None:
    client = _client(reply)
    uri = client.register("me@example.com", external_account_binding.ExternalAccountBinding("kid", "aG1hYw"))
    assert is_url(uri)


def _order(reply: _Reply) -> None:
    order, url = _client(reply).order(NAMES, "", "replaced")
    if order.status == messages.STATUS_INVALID:
        raise problems.from_order("ca", NAMES, order)
    assert is_url(url)
    assert all(map(is_url, order.authorizations))


def _order_at(reply: _Reply) -> None:
    order, wait = _client(reply).order_at(f"{URL}/order/1")
    _require_wait(wait)
    if order.status == messages.STATUS_INVALID:
        raise problems.from_order("ca", NAMES, order)


def _authorize(reply: _Reply) -> None:
    client = _client(reply)
    authorization, wait = client.authorization(f"{URL}/authz/1", NAMES)
    _require_wait(wait)
    require_undecided("ca", authorization, NAMES)
    if authorization.status != messages.STATUS_PENDING:
        raise problems.from_authorization("ca", authorization)
    for kind in TYPES:
        with suppress(IssuanceError):
            challenge, body = challenges.choose([kind], authorization)
            proof = challenge.prove(authorization, body, client.prover)
            proof.value.encode("ascii")
            proof.location.encode("ascii")
            str(body.uri)


def _download(reply: _Reply) -> None:
    text, alternates = _client(reply).download(f"{URL}/certificate")
    assert isinstance(text, str)
    assert all(map(is_url, alternates))


def _window(reply: _Reply) -> None:
    window = _client(reply).renewal_window(CERTIFICATE)
    if window is None:
        return
    start, end, why, wait = window
    assert start <= end
    assert why.isprintable()
    _require_wait(wait)
    info = RenewalInfo.suggest(start, end, wait or 0.0, EPOCH, why)
    schedule = RenewalSchedule(Memory())
    schedule.save_renewal_info(NAMES[0], "r", info)
    assert schedule.renewal_info(NAMES[0], "r") == info, "what the CA said is not read back"


def _bind(reply: _Reply) -> None:
    with _sessions(reply):
        binding = external_account_binding.request_binding("ca", f"{URL}/eab", "me@example.com", 1.0)
    assert binding.kid.isprintable()


def _change_key(reply: _Reply) -> None:
    client = _client(reply)
    client.change_contact("me@example.com")
    client.agree_to_terms()


def _require_wait(seconds: float | None) -> None:
    assert seconds is None or 0 <= seconds <= 7 * 86_400
    assert seconds is None or math.isfinite(seconds)


_CALLS: dict[str, Callable[[_Reply], None]] = {
    "directory": _connect,
    "account": _register,
    "order": _order,
    "order_at": _order_at,
    "authorization": _authorize,
    "certificate": _download,
    "window": _window,
    "binding": _bind,
    "contact": _change_key,
}


def ca_reply(data: bytes) -> None:
    """Only our errors come out, with messages that a person can read."""
    line, body = behind_line(data)
    try:
        head = json.loads(line)
        call, status = _CALLS[head["call"]], int(head["status"])
        headers = {str(name): _header(str(value)) for name, value in head["headers"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return
    reply = _Reply()
    reply.next = _response(status, headers, body)
    try:
        call(reply)
    except IssuanceError as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < _LONGEST_MESSAGE, len(text)
        retry_after = getattr(error, "retry_after", None)
        _require_wait(retry_after)
        if isinstance(error, IssuerUnavailable) and error.problem is not None:
            str(error.problem).encode()


def _header(text: str) -> str:
    """Return a value as http.client hands it over: Latin-1, on one line."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1").replace("\n", " ").replace("\r", " ")


def retry_after(data: bytes) -> None:
    value, _, date = data.decode("latin-1").partition("\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _require_wait(problems.retry_after(_response(429, {"Retry-After": value, "Date": date}, b"")))


def ca_url(data: bytes) -> None:
    """A URL in a reply: it is refused, or every parser finds the same host in it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = origin(text)
    except UrlRefused as error:
        require_message(error)
        return
    parts = urlsplit(text)
    port = parts.port or 443
    assert found == f"{f'[{parts.hostname}]' if ':' in (parts.hostname or '') else parts.hostname}:{port}"
    with suppress(UrlRefused):
        AllowedHosts(text).allow({"newNonce": text})
    with suppress(UrlRefused):
        AllowedHosts("https://ca.test/").allow({"newNonce": text})


TARGETS = (
    Target(
        "ca_reply",
        ca_reply,
        replies,
        [
            within(behind_line, json_mutator(WORDS)),
            within(behind_line, json_mutator(WORDS)),
            of_line(json_mutator(WORDS)),
            within(behind_line, text_mutator()),
        ],
        seconds=1.5,
        longest=250_000,
    ),
    Target("retry_after", retry_after, waits, [text_mutator(["GMT", "Nov", "+0000", "-2359", "Mon, "])], longest=120),
    Target(
        "ca_url",
        ca_url,
        urls,
        [text_mutator(["https://", "@", "[", "]", "%2e", ":443", "\\", "#", "?"])],
        longest=2_100,
    ),
)
