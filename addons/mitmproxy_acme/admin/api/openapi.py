"""The admin API as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1): ``GET /openapi.json``.

This module knows requests, replies and their bounds; it must not know how a reply is made.
"""

import functools
import json
from collections.abc import Sequence
from http import HTTPStatus

from ... import __version__
from ...core.revocation import REASONS
from ..certificate_rows import SortKey, State
from ..documents import Document
from ..problems import KINDS, Problem
from .schemas import (
    COUNT,
    EXAMPLE_CERTIFICATE,
    FLAG,
    SCHEMAS,
    TEXT,
    describe_kinds,
    list_of,
    object_of,
    one_of,
    or_null,
    refer,
)

SIZE_DEFAULT, SIZE_MOST = 100, 1_000
LONGEST_SEARCH = 253
WITHOUT_REVOCATION = "none"
ONLY_HISTORY = "history"

_JSON, _PROBLEM = "application/json", "application/problem+json"
_ALWAYS = (400, 401, 403, 405, 415, 421)


def _content(kind: str, schema: Document, example: object = None) -> Document:
    return {kind: {"schema": schema} | ({"example": example} if example is not None else {})}


def _reply(description: str, schema: Document, example: object = None) -> Document:
    return {"description": description, "content": _content(_JSON, schema, example)}


def _message(description: str, text: str) -> Document:
    return _reply(description, object_of(message=TEXT), {"message": text})


def _operation(
    id: str, summary: str, replies: dict[int, Document], problems: Sequence[int] = (), **more: object
) -> Document:
    """Describe an operation: its successful replies, its own problems, and those that any operation may have."""
    failures = {status: {"$ref": f"#/components/responses/{status}"} for status in sorted({*_ALWAYS, *problems})}
    responses = {str(status): reply for status, reply in {**replies, **failures}.items()}
    return {"operationId": id, "summary": summary, **more, "responses": responses}


def _query(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_PROBLEMS = {
    400: "the request is wrong; the message says what would be right",
    401: "a token is needed",
    403: "another web site asked for a change, without the token",
    404: "there is no such certificate, or no such resource",
    405: "the resource does not support the method",
    409: "a data node cannot do this",
    411: "a body needs its Content-Length",
    413: "the body is too long",
    415: "without the token, a change needs a JSON body",
    421: "without a token, the Host header must be an address of this machine",
    500: "no certificate could be obtained; the message gives the reason",
    503: "the storage is down or still being read, or too many clients ask at once",
}


def _problem(status: int, description: str) -> Document:
    kinds = [kind for kind in KINDS if kind.status == status]
    example = Problem(status, description, kinds[0] if kinds else None).document()
    headers: Document = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": {"schema": TEXT, "required": True}}
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": {"schema": TEXT, "required": True}}
    elif status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = {"Retry-After": {"description": "seconds, if known", "schema": COUNT}}
    text = f"{description}. {describe_kinds(kinds)}" if kinds else description
    return {"description": text, "headers": headers, "content": _content(_PROBLEM, refer("Problem"), example)}


_HOST: Document = {
    "name": "host",
    "in": "path",
    "required": True,
    "description": "any name of a certificate that acme_certificates lists, or the name under which another is "
    "stored; an IPv6 address without brackets, percent-encoded; append +rsa or +ecdsa for the second kind of key",
    "schema": {"type": "string", "minLength": 1},
    "example": "www.example.com",
}
_CREATION: Document = {
    "type": "object",
    "properties": {
        "host": TEXT | {"minLength": 1, "description": "one DNS name or IP address, without a port"},
        "test_http_challenge_flow": FLAG
        | {"description": "only test whether a challenge would arrive here; order nothing"},
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
    _query("offset", "the offset that the previous page returned", TEXT),
    _query("search", "part of any of the names", TEXT | {"maxLength": LONGEST_SEARCH}),
    _query("state", "one of these states; repeat the parameter for several", list_of(one_of(list(State)))),
    _query("sort", "by host, or what expires first", one_of(list(SortKey)) | {"default": SortKey.HOST}),
    _query("invalid_only", "with any value: only certificates that clients do not accept now", TEXT),
]
_REASON = _query(
    "reason",
    f"the reason of RFC 5280; {WITHOUT_REVOCATION} deletes without revoking",
    one_of([*REASONS, WITHOUT_REVOCATION]) | {"default": "unspecified"},
)
_EVENTS: Document = {
    "description": "server-sent events named `status`, `history` and `traffic`, whose data are the documents of "
    "`/acme/status`, `/acme/history` and `/acme/traffic`",
    "content": _content("text/event-stream", TEXT, 'event: status\ndata: {"node": …}\n\n'),
}
_OPEN: Document = {"security": [{}]}
_HEALTH_SCHEMA = object_of(status=one_of(["ok", "storage is down"]))

_PATHS: Document = {
    "/acme": {
        "post": _operation(
            "create",
            "Create a certificate and wait for it, or test whether a challenge would arrive",
            {
                200: _message("the test passed", "sanity test for host www.example.com passed"),
                201: _message("it is stored", "certificate for host www.example.com is created"),
            },
            (411, 413, 500, 503),
            requestBody={"required": True, "content": _JSON_CREATION | _FORM_CREATION},
        ),
        "patch": _operation(
            "renewDue",
            "Renew every certificate that is due, now",
            {202: _message("the renewals have begun", "Renewal process started successfully")},
            (409, 503),
        ),
    },
    "/acme/certificates": {
        "get": _operation(
            "list", "The stored certificates, in pages", {200: _PAGE}, (503,), parameters=_PAGE_PARAMETERS
        ),
    },
    "/acme/certificates/{host}": {
        "parameters": [_HOST],
        "get": _operation("show", "One certificate", {200: _ONE}, (404, 503)),
        "delete": _operation(
            "revoke",
            "Have the CA revoke it, and delete it on every node; a managed certificate is then obtained again. If the "
            "CA is down, a revocation for keyCompromise is retried automatically",
            {
                200: _message(
                    "keyCompromise: revoked; the message says whether a certificate with a new key replaces it",
                    "certificate for host www.example.com is revoked (keyCompromise), "
                    "and replaced by a certificate with a new key",
                ),
                204: {"description": "done"},
            },
            (404, 409, 500, 503),
            parameters=[_REASON],
        ),
    },
    "/acme/certificates/{host}/renew": {
        "parameters": [_HOST],
        "post": _operation(
            "renew", "Order a new certificate now, and wait for it", {200: _ONE}, (404, 409, 411, 413, 500, 503)
        ),
    },
    "/acme/status": {
        "get": _operation("status", "This node and its cluster", {200: _reply("the current status", refer("Status"))}),
    },
    "/acme/history": {
        "get": _operation(
            "history", "What happened to certificates on all nodes", {200: _reply("the events", refer("History"))}
        ),
    },
    "/acme/traffic": {
        "get": _operation(
            "traffic",
            "The TLS handshakes of this node in the last hour",
            {200: _reply("the numbers", refer("Traffic"))},
        ),
    },
    "/acme/events": {
        "get": _operation(
            "events",
            "Status, history and traffic, each sent at its changes",
            {200: _EVENTS},
            (503,),
            parameters=[_query("only", "leave out the other documents", one_of([ONLY_HISTORY]))],
        ),
    },
    "/health": {
        "get": _operation(
            "health",
            "Whether the storage works; reveals nothing else",
            {
                200: _reply("it works", _HEALTH_SCHEMA, {"status": "ok"}),
                503: _reply("it does not", _HEALTH_SCHEMA, {"status": "storage is down"}),
            },
            **_OPEN,
        ),
    },
    "/openapi.json": {
        "get": _operation("openapi", "This document", {200: _reply("OpenAPI 3.1", {"type": "object"})}, **_OPEN),
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "The metrics, for Prometheus",
            {200: {"description": "samples", "content": {"text/plain": {"schema": TEXT}}}},
        ),
    },
}


def _with_body(path: str, content: Document) -> Document:
    item = _PATHS[path]
    return {path: item | {"post": item["post"] | {"requestBody": {"required": True, "content": content}}}}


# Without a token a change must be JSON, which no other web site can have a browser send (``auth``).
_PATHS_WITHOUT_TOKEN: Document = (
    _PATHS
    | _with_body("/acme", _JSON_CREATION)
    | _with_body("/acme/certificates/{host}/renew", _content(_JSON, {"type": "object"}, {}))
)
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "acme_admin_token; without one the API listens on loopback only and needs no token",
}


@functools.cache
def text(*, token: bool) -> str:
    """Return the document as JSON. It is made once: anyone may ask for it."""
    return json.dumps(document(token=token))


def document(*, token: bool) -> Document:
    """Return the document of an API with a token, or of one without."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "mitmproxy-acme",
            "summary": "The certificates of a mitmproxy: the Admin API of Kong's ACME plugin, and more",
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
