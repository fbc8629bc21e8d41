"""The JSON documents that the admin API, the command line and the webhook share.

This module knows their fields, Kong's among them (its Admin API for the ACME plugin); it must not know how they travel.
Nothing in them is secret. Times that end in ``_at`` are RFC 3339 in UTC; Kong's two are written as Kong does.
"""

import datetime
from typing import Any

from ..config.config import Config
from ..core.backoff import Backoff
from ..core.certificate import Certificate
from ..core.events import CertificateExpiring, CertificateFailed, CertificateObtained, CertificateRemoved, Event
from ..core.names import ServerName
from ..core.renewal import renew_at
from .certificate_rows import CertificateDetails, CertificateRow

type Document = dict[str, Any]

# The names that OpenSSL has for them, as Kong's API shows them.
_PUBKEY_TYPES = {"ecdsa": "id-ecPublicKey", "rsa": "rsaEncryption"}


def timestamp(at: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC: ``2026-11-24T14:30:00Z``."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_time(timestamp: str) -> float:
    """Read what ``timestamp`` wrote."""
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def certificate(row: CertificateRow, config: Config, now: float, failure: Backoff | None) -> Document:
    """Describe a stored certificate: Kong's eight fields first, then ours. ``failure`` is why it is not renewed."""
    facts = row.facts
    subject = config.subject(row.id)
    return {
        "host": row.id,
        "digest": _colons(facts.sha1) if facts else None,
        "issuer_cn": facts.issuer if facts else None,
        "not_before": _as_kong(facts.not_before) if facts else None,
        "not_after": _as_kong(facts.not_after) if facts else None,
        "valid": row.is_valid(now),
        "serial_number": _colons(_bytes(facts.serial)) if facts else None,
        "pubkey_type": _PUBKEY_TYPES[facts.key_type.partition("-")[0]] if facts else None,
        "state": row.state(now).value,
        "names": list(facts.names) if facts else [],
        "managed": subject is not None and subject.managed,
        "ca": facts.ca if facts else None,
        "key_type": facts.key_type if facts else None,
        "fingerprint_sha256": facts.sha256.hex() if facts else None,
        "valid_from_at": timestamp(facts.not_before) if facts else None,
        "expires_at": timestamp(facts.not_after) if facts else None,
        "renew_at": timestamp(facts.renew_at) if facts else None,
        "trouble": row.trouble or None,
        "last_failure": failure_of(row.id, failure) if failure else None,
    }


def failure_of(id: str | ServerName, backoff: Backoff) -> Document:
    """Describe what failed, and when it is tried again."""
    return {
        "host": id,
        "reason": backoff.reason,
        "failures": backoff.failures,
        "retry_at": timestamp(backoff.until),
    }


def event(event: Event, config: Config, id: str, at: float) -> Document | None:
    """Describe what happened at ``at``, under an id of its own; None for what is only between nodes."""
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


def _held(held: Certificate, config: Config, now: float) -> Document:
    """Describe a certificate that is at hand, as far as it itself says."""
    row = CertificateRow(held.id, CertificateDetails.of(held, renew_at(held, config.renew_before, None)))
    return certificate(row, config, now, None)


def _as_kong(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _colons(data: bytes) -> str:
    return data.hex(":").upper()


def _bytes(serial: int) -> bytes:
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big")
