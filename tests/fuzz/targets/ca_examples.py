"""Replies of a CA to each request, as RFC 8555 and RFC 9773 have them: what the target ``ca_reply`` begins with."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mitmproxy_acme.core.names import ServerName
from tests.mitmproxy_acme.fakes import make_certificate

URL = "https://ca.test"
NAMES = (ServerName("a.example.test"), ServerName("*.example.test"))
CALLS = ("directory", "account", "order", "order_at", "authorization", "certificate", "window", "binding", "contact")
TYPES = ("http-01", "tls-alpn-01", "dns-01", "dns-account-01", "dns-persist-01")
DIRECTORY: dict[str, Any] = {
    "newNonce": f"{URL}/nonce", "newAccount": f"{URL}/account", "newOrder": f"{URL}/order",
    "revokeCert": f"{URL}/revoke",
    "keyChange": f"{URL}/key", "renewalInfo": f"{URL}/ari", "meta": {"termsOfService": f"{URL}/tos",
    "profiles": {"short": "x"}},
}  # fmt: skip
_PROBLEM = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "no", "status": 429}
_COMPOUND = _PROBLEM | {"subproblems": [_PROBLEM | {"identifier": {"type": "dns", "value": "a.example.test"}}]}
_ORDER = {
    "status": "pending", "expires": "2026-11-30T00:00:00Z", "identifiers": [{"type": "dns",
    "value": str(name)} for name in NAMES],
    "authorizations": [f"{URL}/authz/1"], "finalize": f"{URL}/finalize", "certificate": f"{URL}/certificate",
}  # fmt: skip
_AUTHORIZATION = {
    "identifier": {"type": "dns", "value": "a.example.test"}, "status": "pending", "expires": "2026-11-30T00:00:00Z",
    "wildcard": False,
    "challenges": [{"type": kind, "url": f"{URL}/chall", "token": "dG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4",
    "status": "pending"} for kind in TYPES],
}  # fmt: skip
_FAILED = _AUTHORIZATION | {"status": "invalid", "challenges": [_AUTHORIZATION["challenges"][0] | {"error": _COMPOUND}]}  # type: ignore[index]
_PERSIST = {"type": "dns-persist-01", "url": f"{URL}/chall", "status": "pending", "issuer-domain-names": ["ca.test"]}
_WINDOW = {
    "suggestedWindow": {"start": "2026-11-29T00:00:00Z", "end": "2026-11-30T00:00:00Z"},
    "explanationURL": f"{URL}/why",
}
_BINDING = {"success": True, "eab_kid": "k", "eab_hmac_key": "h"}
CERTIFICATE = make_certificate([NAMES[0]], key=ec.derive_private_key(2, ec.SECP256R1()))


def _seed(call: str, body: Any, status: int = 200, **headers: str) -> bytes:
    head = {
        "call": call,
        "status": status,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
    }
    return json.dumps(head).encode() + b"\n" + (body.encode() if isinstance(body, str) else json.dumps(body).encode())


def replies() -> list[bytes]:
    problem = {"Content_Type": "application/problem+json", "Retry_After": "60"}
    return [
        _seed("directory", DIRECTORY), _seed("account", {"status": "valid"}, 201, Location=f"{URL}/account/1"),
        _seed("order", _ORDER, 201, Location=f"{URL}/order/1"), _seed("order_at", _ORDER | {"status": "invalid",
        "error": _COMPOUND}),
        _seed("authorization", _AUTHORIZATION), _seed("authorization", _FAILED), _seed("authorization",
        _AUTHORIZATION | {"challenges": [_PERSIST]}),
        _seed("certificate", CERTIFICATE.chain_pem, Link=f'<{URL}/alt>;rel="alternate"'), _seed("window", _WINDOW,
        Retry_After="21600"),
        _seed("binding", _BINDING), _seed("binding", {"success": False, "error": {"type": "x"}}), _seed("contact",
        {"status": "valid"}),
        *(_seed(call, _COMPOUND, 429, **problem) for call in CALLS), _seed("order", "<html>", 503,
        Content_Type="text/html"),
        _seed("order", "", 301, Location="http://other.test/"),
    ]  # fmt: skip


def waits() -> list[bytes]:
    return [
        b"120",
        b"1e3",
        b"Sun, 29 Nov 2026 16:00:00 GMT\nSun, 29 Nov 2026 15:00:00 GMT",
        b"nan",
        b"-1",
        b"Sunday, 29-Nov-26 16:00:00 GMT\nx",
    ]


def urls() -> list[bytes]:
    return [
        b"https://ca.test/x?y=z",
        b"https://[2001:db8::1]:8443/",
        b"https://127.1/",
        b"https://0x7f000001:443/a",
        b"https://localhost./",
    ]


WORDS = (
    *DIRECTORY, *_ORDER, *_AUTHORIZATION, *TYPES, *CALLS, "type", "detail", "subproblems", "error", "token", "url",
    "urn:ietf:params:acme:error:badNonce",
    "suggestedWindow", "start", "end", "explanationURL", "success", "meta", "profiles", "Retry-After", "Location",
    "Link", "Date", "Content-Type", "Replay-Nonce",
    "application/problem+json", "application/json", "expires", "validated", "certificate", "201", "409",
    "issuer-domain-names", "accounturi",
)  # fmt: skip
