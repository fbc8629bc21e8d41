"""The JSON documents that the admin API, the command line and the webhook share.

This module knows their fields, those of Kong's Admin API for its ACME plugin included; it must not know how they are
sent. Nothing in them is secret. Times that end in ``_at`` are RFC 3339 in UTC; Kong's two have Kong's format.
"""

import datetime
from collections.abc import Iterable
from typing import Any

from ..config.config import Config
from ..core.backoff import Backoff
from ..core.certificate import Certificate
from ..core.events import CertificateExpiring, CertificateFailed, CertificateObtained, CertificateRemoved, Event
from ..core.names import ServerName
from ..core.renewal import renew_at
from ..store.event_log import LoggedEvent
from .certificate_rows import CertificateDetails, CertificateRow

type Document = dict[str, Any]

# OpenSSL's names of key types, as in Kong's API.
_PUBKEY_TYPES = {"ecdsa": "id-ecPublicKey", "rsa": "rsaEncryption"}


def timestamp(at: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC: ``2026-11-24T14:30:00Z``."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_time(timestamp: str) -> float:
    """Parse what ``timestamp`` returns."""
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def certificate(row: CertificateRow, config: Config, now: float, failure: Backoff | None) -> Document:
    """Describe a stored certificate: Kong's eight fields, then ours. ``failure`` is its last failed order."""
    details = row.details
    subject = config.subject(row.id)
    return {
        "host": row.id,
        "digest": _colons(details.sha1) if details else None,
        "issuer_cn": details.issuer if details else None,
        "not_before": _as_kong(details.not_before) if details else None,
        "not_after": _as_kong(details.not_after) if details else None,
        "valid": row.is_valid(now),
        "serial_number": _colons(_bytes(details.serial)) if details else None,
        "pubkey_type": _PUBKEY_TYPES[details.key_type.partition("-")[0]] if details else None,
        "state": row.state(now).value,
        "names": list(details.names) if details else [],
        "managed": subject is not None and subject.managed,
        "ca": details.ca if details else None,
        "key_type": details.key_type if details else None,
        "fingerprint_sha256": details.sha256.hex() if details else None,
        "valid_from_at": timestamp(details.not_before) if details else None,
        "expires_at": timestamp(details.not_after) if details else None,
        "renew_at": timestamp(details.renew_at) if details and details.idle_since is None else None,
        "idle_since_at": timestamp(details.idle_since) if details and details.idle_since is not None else None,
        "trouble": row.trouble or None,
        "last_failure": failure_of(row.id, failure) if failure else None,
    }


def failure_of(id: str | ServerName, backoff: Backoff) -> Document:
    """Describe a failure, and when the next attempt follows."""
    return {
        "host": id,
        "reason": backoff.reason,
        "failures": backoff.failures,
        "retry_at": timestamp(backoff.until),
    }


def event(event: Event, config: Config, id: str, at: float) -> Document | None:
    """Describe an event at ``at`` (Unix seconds) under an ``id``; None for events that only concern nodes."""
    match event:
        case CertificateObtained(subject, held, ca, seconds, renewal):
            what: Document = {"ca": ca, "seconds": round(seconds, 3), "renewal": renewal}
            what |= {"host": subject.id, "certificate": _held(held, config, at)}
            word = "certificate_obtained"
        case CertificateFailed(subject, ca, problem, reason, failures, retry_at):
            what = {"ca": ca, "problem": problem or None, "reason": reason, "failures": failures}
            what |= {"host": subject.id, "names": list(subject.names), "retry_at": timestamp(retry_at)}
            word = "certificate_failed"
        case CertificateExpiring(subject, held, reason):
            what = {"host": subject.id, "reason": reason, "certificate": _held(held, config, at)}
            word = "certificate_expiring"
        case CertificateRemoved(host, revocation, _, replaced):
            what = {"host": host, "revocation": revocation, "replaced": replaced}
            word = "certificate_removed"
        case _:
            return None
    return {"event": word, "id": id, "at": timestamp(at), "node": event.node, **what}


def describe_history(events: Iterable[LoggedEvent]) -> Document:
    """Describe what happened on all nodes: the document of ``/acme/history``."""
    return {"data": [logged_event(event) for event in events]}


def logged_event(event: LoggedEvent) -> Document:
    """Describe one event of any node."""
    return {
        "id": str(event.id),
        "at": timestamp(event.id.moment / 1000),
        "event": event.kind.value,
        "host": event.host,
        "more": event.more,
        "node": event.id.node,
        "machine": event.machine,
        "ca": event.ca or None,
        "seconds": event.seconds,
        "reason": event.reason or None,
        "retry_at": timestamp(event.retry_at) if event.retry_at is not None else None,
        "left_out": event.left_out,
    }


def event_details(event: Document) -> str:
    """Return in words what ``logged_event`` says beside the name: ``by letsencrypt in 2.31 s``."""
    by = f"by {event['ca']}" if event["ca"] else ""
    took = f"in {event['seconds']:.2f} s" if event["seconds"] is not None else ""
    order = " ".join(text for text in (by, took) if text)
    retry = f"next attempt at {event['retry_at']}" if event["retry_at"] else ""
    return ", ".join(text for text in (event["reason"], order, retry) if text)


def _held(held: Certificate, config: Config, now: float) -> Document:
    """Describe a certificate from its own content."""
    row = CertificateRow(held.id, CertificateDetails.of(held, renew_at(held, config.renew_before, None)))
    return certificate(row, config, now, None)


def _as_kong(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _colons(data: bytes) -> str:
    return data.hex(":").upper()


def _bytes(serial: int) -> bytes:
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big")
