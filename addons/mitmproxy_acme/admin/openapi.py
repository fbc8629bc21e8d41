"""The admin API as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1): ``GET /openapi.json``.

This module knows what may be asked and replied, and its bounds; it must not know how any of it comes about.
"""

import functools
import json
from http import HTTPStatus

from .. import __version__
from ..core.revocation import REASONS
from .certificate_rows import SortKey, State
from .documents import Document
from .schemas import COUNT, EXAMPLE_CERTIFICATE, FLAG, SCHEMAS, TEXT, list_of, object_of, one_of, or_null, refer

SIZE_DEFAULT, SIZE_MOST = 100, 1_000
LONGEST_SEARCH = 253
WITHOUT_REVOCATION = "none"

_JSON, _PROBLEM = "application/json", "application/problem+json"
_ALWAYS = (400, 401, 403, 405, 415, 421)


def _content(kind: str, schema: Document, example: object = None) -> Document:
    return {kind: {"schema": schema} | ({"example": example} if example is not None else {})}


def _reply(description: str, schema: Document, example: object = None) -> Document:
    return {"description": description, "content": _content(_JSON, schema, example)}


def _message(description: str, text: str) -> Document:
    return _reply(description, object_of(message=TEXT), {"message": text})


def _operation(id: str, summary: str, replies: dict[int, Document], *problems: int, **more: object) -> Document:
    """Describe an operation: its good replies, the problems of its own, and those that any may end in."""
    failures = {status: {"$ref": f"#/components/responses/{status}"} for status in sorted({*_ALWAYS, *problems})}
    responses = {str(status): reply for status, reply in {**replies, **failures}.items()}
    return {"operationId": id, "summary": summary, **more, "responses": responses}


def _query(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_PROBLEMS = {
    400: "what was asked for is not right; the message says what would be",
    401: "a token is needed",
    403: "another web site asked for a change, without the token",
    404: "there is no such certificate, or no such resource",
    405: "the resource has no such method",
    409: "a data node does no such thing",
    411: "a body needs its Content-Length",
    413: "the body is longer than any that is read",
    415: "a change without the token needs a JSON body",
    421: "without a token, the Host header must be an address of this machine",
    500: "no certificate came of it; the message has the CA's reason",
    503: "the storage is down, or is still being read; or too many watch",
}


def _problem(status: int, description: str) -> Document:
    title = HTTPStatus(status).phrase
    example = {"type": "about:blank", "title": title, "status": status, "detail": description, "message": description}
    headers: Document = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": {"schema": TEXT, "required": True}}
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": {"schema": TEXT, "required": True}}
    elif status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = {"Retry-After": {"description": "seconds, where they are known", "schema": COUNT}}
    return {"description": description, "headers": headers, "content": _content(_PROBLEM, refer("Problem"), example)}


_HOST: Document = {
    "name": "host",
    "in": "path",
    "required": True,
    "description": "any name of the certificate that acme_certificates lists; of others the one they are stored under; "
    "an IPv6 address without brackets, percent-encoded; +rsa or +ecdsa behind it for the second kind of key",
    "schema": {"type": "string", "minLength": 1},
    "example": "www.example.com",
}
_CREATION: Document = {
    "type": "object",
    "properties": {
        "host": TEXT | {"minLength": 1, "description": "one DNS name or IP address: no port"},
        "test_http_challenge_flow": FLAG
        | {"description": "only test whether a challenge would arrive here; nothing is ordered"},
    },
    "required": ["host"],
}
_JSON_CREATION = _content(_JSON, _CREATION, {"host": "www.example.com"})
_FORM_CREATION = {
    kind: content
    for form in ("application/x-www-form-urlencoded", "multipart/form-data")
    for kind, content in _content(form, _CREATION, {"host": "www.example.com"}).items()
}
_ONE = _reply("the certificate", object_of(data=refer("Certificate")), {"data": EXAMPLE_CERTIFICATE})
_PAGE = _reply(
    "one page",
    object_of(data=list_of(refer("Certificate")), next=or_null(TEXT), offset=or_null(TEXT)),
    {"data": [EXAMPLE_CERTIFICATE], "next": None, "offset": None},
)
_PAGE_PARAMETERS = [
    _query(
        "size",
        "certificates on a page",
        {"type": "integer", "minimum": 1, "maximum": SIZE_MOST, "default": SIZE_DEFAULT},
    ),
    _query("offset", "what the page before gave", TEXT),
    _query("search", "a part of any of the names", TEXT | {"maxLength": LONGEST_SEARCH}),
    _query("state", "any of several", list_of(one_of(list(State)))),
    _query("sort", "by host, or what expires first", one_of(list(SortKey)) | {"default": SortKey.HOST}),
    _query("invalid_only", "with any value: only what a client does not accept now", TEXT),
]
_REASON = _query(
    "reason",
    f"RFC 5280's word for why; {WITHOUT_REVOCATION} deletes without revoking",
    one_of([*REASONS, WITHOUT_REVOCATION]) | {"default": "unspecified"},
)
_EVENTS: Document = {
    "description": "server-sent events named `status`, whose data is the document of `/acme/status`",
    "content": _content("text/event-stream", TEXT, 'event: status\ndata: {"node": …}\n\n'),
}
_OPEN: Document = {"security": [{}]}
_HEALTH_SCHEMA = object_of(status=one_of(["ok", "storage is down"]))

_PATHS: Document = {
    "/acme": {
        "post": _operation(
            "create",
            "Create a certificate, and wait for it; or test whether one could be had",
            {
                200: _message("the test passed", "sanity test for host www.example.com passed"),
                201: _message("it is stored", "certificate for host www.example.com is created"),
            },
            *(411, 413, 500, 503),
            requestBody={"required": True, "content": _JSON_CREATION | _FORM_CREATION},
        ),
        "patch": _operation(
            "renewDue",
            "Have whatever is due renewed now",
            {202: _message("begun", "Renewal process started successfully")},
            *(409, 503),
        ),
    },
    "/acme/certificates": {
        "get": _operation("list", "What is stored, in pages", {200: _PAGE}, 503, parameters=_PAGE_PARAMETERS),
    },
    "/acme/certificates/{host}": {
        "parameters": [_HOST],
        "get": _operation("show", "One certificate", {200: _ONE}, 404, 503),
        "delete": _operation(
            "revoke",
            "Have the CA revoke it, and forget it on every node; a managed one is obtained anew. What a CA that is "
            "down leaves undone for keyCompromise is tried again by itself",
            {
                200: _message(
                    "keyCompromise: revoked, and replaced by one with a new key, or else why not",
                    "certificate for host www.example.com is revoked (keyCompromise), "
                    "and another with a new key is in its place",
                ),
                204: {"description": "done"},
            },
            *(404, 409, 500, 503),
            parameters=[_REASON],
        ),
    },
    "/acme/certificates/{host}/renew": {
        "parameters": [_HOST],
        "post": _operation(
            "renew", "Order a new one now, and wait for it", {200: _ONE}, *(404, 409, 411, 413, 500, 503)
        ),
    },
    "/acme/status": {
        "get": _operation("status", "This node and its cluster", {200: _reply("at this moment", refer("Status"))}),
    },
    "/acme/events": {
        "get": _operation("events", "The status, sent whenever it changes", {200: _EVENTS}, 503),
    },
    "/health": {
        "get": _operation(
            "health",
            "Whether the storage can be used; nothing else is told",
            {
                200: _reply("it can", _HEALTH_SCHEMA, {"status": "ok"}),
                503: _reply("it cannot", _HEALTH_SCHEMA, {"status": "storage is down"}),
            },
            **_OPEN,
        ),
    },
    "/openapi.json": {
        "get": _operation("openapi", "This document", {200: _reply("OpenAPI 3.1", {"type": "object"})}, **_OPEN),
    },
    # Served by the metrics' own resource.
    "/metrics": {
        "get": _operation(
            "metrics",
            "What is measured, as Prometheus reads it",
            {200: {"description": "samples", "content": {"text/plain": {"schema": TEXT}}}},
        ),
    },
}


def _with_body(path: str, content: Document) -> Document:
    item = _PATHS[path]
    return {path: item | {"post": item["post"] | {"requestBody": {"required": True, "content": content}}}}


# A change is JSON there, which no other web site can have a browser send (``guard``).
_PATHS_WITHOUT_TOKEN: Document = (
    _PATHS
    | _with_body("/acme", _JSON_CREATION)
    | _with_body("/acme/certificates/{host}/renew", _content(_JSON, {"type": "object"}, {}))
)
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "acme_admin_token; where none is set, the API listens on loopback only and needs none",
}


@functools.cache
def text(*, token: bool) -> str:
    """Return the document as JSON; it stays the same, and anyone may ask for it."""
    return json.dumps(document(token=token))


def document(*, token: bool) -> Document:
    """Return the document of an API that needs the token, or of one without any."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "mitmproxy-acme",
            "summary": "The certificates of a mitmproxy: Kong's Admin API for its ACME plugin, and what goes beyond it",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}] if token else [{}],
        "paths": _PATHS if token else _PATHS_WITHOUT_TOKEN,
        "components": {
            "schemas": SCHEMAS,
            "responses": {str(status): _problem(status, text) for status, text in _PROBLEMS.items()},
            "securitySchemes": {"token": _TOKEN},
        },
    }
