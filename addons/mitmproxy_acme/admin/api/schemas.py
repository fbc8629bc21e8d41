"""The documents of the admin API as JSON schemas, which OpenAPI 3.1 takes as they are.

This module knows the fields of every document; it must not know the resources that return them.
"""

from collections.abc import Iterable, Sequence
from typing import get_args

from ...core.instrumentation import Handshake
from ...core.rate_limits import LimitKind
from ...store.event_log import EventKind
from ..certificate_rows import State
from ..documents import Document
from ..problems import ABOUT_BLANK, KINDS, ProblemKind

_ROLES = ("standalone", "control", "data")
TEXT: Document = {"type": "string"}
FLAG: Document = {"type": "boolean"}
COUNT: Document = {"type": "integer", "minimum": 0}
SECONDS: Document = {"type": "number", "minimum": 0}
_TIME: Document = {"type": "string", "format": "date-time"}
_BYTES: Document = {"type": "string", "pattern": "^[0-9A-F]{2}(:[0-9A-F]{2})*$"}
_KONGS_TIME: Document = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", "description": "UTC"}


def refer(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(item: Document) -> Document:
    return {"type": "array", "items": item}


def or_null(schema: Document) -> Document:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema | {"type": [schema["type"], "null"]}


def one_of(words: Sequence[str]) -> Document:
    return {"type": "string", "enum": [str(word) for word in words]}


def object_of(**fields: Document) -> Document:
    """Describe an object that has all of these fields, and no other."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def describe_kinds(kinds: Iterable[ProblemKind]) -> str:
    """Describe kinds of problems in Markdown, as OpenAPI has it."""
    return "; ".join(f"`{kind.type}`: {kind.meaning}" for kind in kinds)


SCHEMAS: Document = {
    "Problem": object_of(
        type=one_of([ABOUT_BLANK, *(kind.type for kind in KINDS)])
        | {"description": f"decide by this. {ABOUT_BLANK}: the status says it all. {describe_kinds(KINDS)}"},
        title=TEXT,
        status={"type": "integer"},
        detail=TEXT,
        message=TEXT | {"description": "the same as detail, under Kong's name"},
        reason=TEXT | {"description": "the same as detail, without Kong's words before it"},
        retry_at=or_null(_TIME) | {"description": "when a repeated request may succeed, if known"},
        stop=or_null(TEXT) | {"description": "why no other certificate can be obtained now either"},
    )
    | {"description": "RFC 9457"},
    "Failure": object_of(host=TEXT, reason=TEXT, failures=COUNT, retry_at=_TIME)
    | {"description": "What failed, how many times in a row, and when the next attempt follows."},
    "Certificate": object_of(
        host=TEXT
        | {"description": "where it is stored: under its first name, with +rsa or +ecdsa for a second kind of key"},
        digest=or_null(_BYTES) | {"description": "SHA-1"},
        issuer_cn=or_null(TEXT),
        not_before=or_null(_KONGS_TIME),
        not_after=or_null(_KONGS_TIME),
        valid=FLAG | {"description": "clients accept it now"},
        serial_number=or_null(_BYTES),
        pubkey_type={"enum": ["id-ecPublicKey", "rsaEncryption", None]},
        state=one_of(list(State)),
        names=list_of(TEXT),
        managed=FLAG | {"description": "listed in acme_certificates"},
        ca=or_null(TEXT) | {"description": "the CA's directory URL"},
        key_type=or_null(TEXT),
        fingerprint_sha256=or_null({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
        valid_from_at=or_null(_TIME),
        expires_at=or_null(_TIME),
        renew_at=or_null(_TIME) | {"description": "null while it is idle"},
        idle_since_at=or_null(_TIME)
        | {"description": "since when no client has asked for it, if it is not renewed for that reason"},
        trouble=or_null(TEXT) | {"description": "why the record cannot be read"},
        last_failure=or_null(refer("Failure")),
    )
    | {"description": "Kong's eight fields come first. Most fields are null if the record cannot be read."},
    "Node": object_of(id=TEXT, role=one_of(_ROLES), version=TEXT, host=TEXT, since_at=_TIME, self=FLAG),
    "CA": object_of(
        name=TEXT,
        directory=TEXT,
        account=or_null(TEXT) | {"description": "URL of the account"},
        state=one_of(["ok", "backing_off"]),
        error=or_null(TEXT),
        retry_at=or_null(_TIME),
        budgets=list_of(refer("Budget")),
    ),
    "Budget": object_of(
        limit=one_of(list(LimitKind)),
        scope=TEXT | {"description": "the registered domain or the name that the limit is for; empty for the account"},
        left=COUNT,
        capacity=COUNT,
        full_at=_TIME,
    ),
    "Status": object_of(
        node=refer("Node"),
        nodes=list_of(refer("Node")),
        cas=list_of(refer("CA")),
        storage=object_of(kind=TEXT, state=one_of(["ok", "down"]), error=or_null(TEXT)),
        certificates=object_of(
            total=COUNT,
            **{state.value: COUNT for state in State},
            complete=FLAG | {"description": "every stored certificate has been read once"},
            revision=COUNT | {"description": "grows with every change"},
            soonest_expiry_at=or_null(_TIME),
            soonest_renewal_at=or_null(_TIME),
        ),
        expiry=list_of(object_of(within_days=or_null(SECONDS), count=COUNT))
        | {"description": "certificates but idle ones, by the days to their end: 0 for expired, null for longer ones"},
        ordering=list_of(object_of(host=TEXT, since_at=_TIME)),
        failing=list_of(refer("Failure")),
        failing_total=COUNT,
        unrevoked=list_of(refer("Failure"))
        | {"description": "certificates with stolen keys that their CAs have not revoked yet"},
        cache=object_of(size=COUNT, limit=COUNT),
    ),
    "Event": object_of(
        id=TEXT | {"description": "unique; later events have greater ids"},
        at=_TIME,
        event=one_of(list(EventKind)),
        host=TEXT | {"description": "the name of the certificate, or the first of several"},
        more=COUNT | {"description": "how many other certificates the event is about"},
        node=TEXT | {"description": "where it happened"},
        machine=TEXT | {"description": "the host name of the node's machine"},
        ca=or_null(TEXT) | {"description": "as acme_ca writes it"},
        seconds=or_null(SECONDS) | {"description": "how long the order took"},
        reason=or_null(TEXT) | {"description": "why it failed, or was removed"},
        retry_at=or_null(_TIME),
        left_out=COUNT
        | {"description": "how many events of this node before this one are not listed, because there were too many"},
    ),
    "History": object_of(data=list_of(refer("Event")))
    | {"description": "the last hundred events of all nodes, the newest first"},
    "Traffic": object_of(
        begin_at=list_of(_TIME) | {"description": "when each minute begins, the oldest first; the last goes on"},
        handshakes=object_of(**{result: list_of(COUNT) for result in get_args(Handshake.__value__)})
        | {"description": "TLS handshakes of this node in each of these minutes, by result"},
        holds=list_of(object_of(up_to_seconds=or_null(SECONDS), count=COUNT))
        | {"description": "how long handshakes were held in these minutes; null for all that took longer"},
    ),
}

EXAMPLE_CERTIFICATE = {
    "host": "www.example.com",
    "digest": "C6:1F:9B:0B:8E:77:64:55:9D:0A:5F:8C:2B:36:09:77:10:F6:4C:3A",
    "issuer_cn": "E7",
    "not_before": "2026-11-24 14:30:00",
    "not_after": "2027-02-22 14:29:59",
    "valid": True,
    "serial_number": "05:3C:91:7B:6D:42:8E:1F:70:A5:C9:33:0B:54:E8:96:21:7D",
    "pubkey_type": "id-ecPublicKey",
    "state": "valid",
    "names": ["example.com", "www.example.com"],
    "managed": True,
    "ca": "https://acme-v02.api.letsencrypt.org/directory",
    "key_type": "ecdsa-p256",
    "fingerprint_sha256": "9f" * 32,
    "valid_from_at": "2026-11-24T14:30:00Z",
    "expires_at": "2027-02-22T14:29:59Z",
    "renew_at": "2027-01-23T14:29:59Z",
    "idle_since_at": None,
    "trouble": None,
    "last_failure": None,
}
