"""An ACME CA that works, except where a test changes its replies; and a canary, which must receive nothing from us.

Knows the resources of RFC 8555 and how to sign a certificate; must not know our client. It verifies no signatures and
validates nothing: it is for its replies, and for counting requests.
"""

import base64
import contextlib
import datetime
import itertools
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.servers.base import free_port
from tests.servers.ca import ThrowawayCA

ERROR = "urn:ietf:params:acme:error:"
_DAY = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass
class Reply:
    """A reply, to be changed by a test. ``body`` is bytes, or anything that JSON can express."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = b""

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


type Change = Callable[[Reply], object]


class HostileCa:
    """A CA at ``directory``, trusted through ``ca_bundle``, that issues for every name at once.

    ``change(resource, how)`` has ``how`` change each later reply of a resource: directory, nonce, account, order (when
    it is created), authorization, challenge, finalize, look (fetching an order), certificate, renewal, keychange,
    revoke. ``drip(resource)`` has it send its headers without end, a byte at a time. ``asked`` counts the requests for
    each.
    """

    def __init__(self, folder: Path) -> None:
        ca = ThrowawayCA(folder)
        self.ca_bundle, self.context = ca.bundle, ca.server_context()
        self.asked: Counter[str] = Counter()
        self.http_port = free_port()  # where it would validate
        self._changes: dict[str, Change] = {}
        self._drips: set[str] = set()
        self._numbers = itertools.count(1)
        self.orders: dict[str, dict[str, Any]] = {}
        self._issuer = _Issuer()
        self.closing = threading.Event()
        self._server = _Server(self.context, self)
        self.base = self._server.url
        self.directory = f"{self.base}/directory"

    def change(self, resource: str, how: Change) -> None:
        """Have ``how`` change what the resource answers from now on."""
        self._changes[resource] = how

    def drip(self, resource: str) -> None:
        """Answer the resource with headers that do not end."""
        self._drips.add(resource)

    def heal(self) -> None:
        """Do as a CA should from now on, and count from nothing."""
        self._changes.clear()
        self._drips.clear()
        self.asked.clear()

    def root(self) -> str:
        """The root of what it issues, as PEM."""
        return self._issuer.root_pem

    def answer(self, path: str, posted: bytes) -> Reply | None:
        """For a request: return the reply; None for headers without end."""
        resource, _, id = path.strip("/").partition("/")
        self.asked[resource] += 1
        if resource in self._drips:
            return None
        payload = _payload(posted)
        reply: Reply = getattr(self, f"_{resource}", _not_found)(id, payload)
        nonce = base64.urlsafe_b64encode(f"nonce-{next(self._numbers):012}".encode()).decode().rstrip("=")
        fresh = {} if resource == "directory" else {"Replay-Nonce": nonce}
        reply.headers = fresh | {"Content-Type": "application/json"} | reply.headers
        if resource in self._changes:
            self._changes[resource](reply)
        return reply

    def _directory(self, _: str, __: Any) -> Reply:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "revoke"}
        more = {"keyChange": "keychange", "renewalInfo": "renewal"}
        return Reply(body={name: f"{self.base}/{path}" for name, path in (names | more).items()})

    def _nonce(self, _: str, __: Any) -> Reply:
        return Reply()

    def _account(self, _: str, __: Any) -> Reply:
        return Reply(201, {"Location": f"{self.base}/account/1"}, {"status": "valid"})

    def _order(self, _: str, payload: Any) -> Reply:
        id = str(next(self._numbers))
        identifiers = payload["identifiers"]
        self.orders[id] = {
            "status": "pending",
            "identifiers": identifiers,
            "authorizations": [f"{self.base}/authorization/{id}-{n}" for n in range(len(identifiers))],
            "finalize": f"{self.base}/finalize/{id}",
        }
        return Reply(201, {"Location": f"{self.base}/look/{id}"}, dict(self.orders[id]))

    def _authorization(self, id: str, _: Any) -> Reply:
        order, _, number = id.partition("-")
        status = "valid" if id in self.orders[order].get("answered", ()) else "pending"
        return Reply(
            body={"status": status, **self._authorized(order, int(number)), "challenges": [_challenge(self, id)]}
        )

    def _authorized(self, order: str, number: int) -> dict[str, Any]:
        identifier = dict(self.orders[order]["identifiers"][number])
        wildcard = identifier["value"].startswith("*.")
        identifier["value"] = identifier["value"].removeprefix("*.")
        return {"identifier": identifier} | ({"wildcard": True} if wildcard else {})

    def _challenge(self, id: str, _: Any) -> Reply:
        self.orders[id.partition("-")[0]].setdefault("answered", set()).add(id)
        up = f'<{self.base}/authorization/{id}>;rel="up"'
        return Reply(200, {"Link": up}, _challenge(self, id) | {"status": "processing"})

    def _finalize(self, id: str, payload: Any) -> Reply:
        csr = x509.load_der_x509_csr(_decoded(payload["csr"]))
        order = self.orders[id]
        order |= {"status": "valid", "certificate": f"{self.base}/certificate/{id}", "chain": self._issuer.issue(csr)}
        return self._look(id, None)

    def _look(self, id: str, _: Any) -> Reply:
        hidden = ("chain", "answered")
        return Reply(body={name: value for name, value in self.orders[id].items() if name not in hidden})

    def _certificate(self, id: str, _: Any) -> Reply:
        headers = {"Content-Type": "application/pem-certificate-chain"}
        return Reply(200, headers, self.orders[id.partition("-")[0]]["chain"].encode())  # ID-N is an alternate

    def _renewal(self, _: str, __: Any) -> Reply:
        now = datetime.datetime.now(datetime.UTC)
        window = {"start": (now + 30 * _DAY).isoformat(), "end": (now + 31 * _DAY).isoformat()}
        return Reply(200, {"Retry-After": "21600"}, {"suggestedWindow": window})

    def _keychange(self, _: str, __: Any) -> Reply:
        return Reply(body={})

    def _revoke(self, _: str, __: Any) -> Reply:
        return Reply()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.stop()


class Canary:
    """A server of our own machine that no CA may have us ask, at ``url``; what arrived is ``requests``.

    With ``ca_bundle`` of a ``HostileCa`` it would be trusted: it speaks TLS with ``context``, or plain HTTP without.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._server = _Server(context, self)
        self.url = self._server.url

    def answer(self, path: str, _: bytes) -> Reply:
        """For a request: note it."""
        self.requests.append(path)
        return Reply(200, {"Replay-Nonce": "AAAA"}, {})

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.stop()


def _challenge(ca: HostileCa, id: str) -> dict[str, str]:
    return {"type": "http-01", "status": "pending", "url": f"{ca.base}/challenge/{id}", "token": "A" * 43}


def _not_found(_: str, __: Any) -> Reply:
    return Reply(404, {"Content-Type": "application/problem+json"}, {"type": f"{ERROR}malformed"})


def _payload(posted: bytes) -> Any:
    with contextlib.suppress(ValueError):
        payload = _decoded(json.loads(posted)["payload"])
        return json.loads(payload) if payload else None
    return None


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Issuer:
    """A root, and an intermediate that signs."""

    def __init__(self) -> None:
        self._root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _sign("Hostile Root", self._root_key.public_key(), "Hostile Root", self._root_key)
        self._intermediate = _sign("Hostile Issuer", self._key.public_key(), "Hostile Root", self._root_key)
        self.root_pem = root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, csr: x509.CertificateSigningRequest) -> str:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = _sign("", csr.public_key(), "Hostile Issuer", self._key, names)
        return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in (leaf, self._intermediate))


def _sign(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    builder = x509.CertificateBuilder(_name(issuer), _name(subject), key, x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(minutes=1)).not_valid_after(now + 90 * _DAY)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    if names is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_SIGNS, critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        return builder.add_extension(own, critical=False).sign(issuer_key, hashes.SHA256())
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(names, critical=True).add_extension(server, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection that drips ends with its client, or with us

    def __init__(self, context: ssl.SSLContext | None, owner: HostileCa | Canary) -> None:
        super().__init__(("127.0.0.1", free_port()), _Request)
        self.owner = owner
        if context is not None:  # the handshake is done as the connection's own thread reads
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if context else 'http'}://localhost:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="hostile")

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is for."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it would wait 40 ms for the client, between headers and body
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        reply = owner.answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if reply is None:
            self._drip(owner.closing)
            return
        self._send(reply.status, reply.headers, reply.encoded())

    do_HEAD = do_POST = do_GET

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drip(self, closing: threading.Event) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not closing.wait(0.02):
            self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        """Be quiet."""
