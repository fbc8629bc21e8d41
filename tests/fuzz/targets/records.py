"""A record of each kind that a node stores, under its key."""

import json

from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store import keys
from mitmproxy_acme.store.event_log import EventKind, LoggedEvent
from mitmproxy_acme.store.expired_certificates import Walk
from mitmproxy_acme.store.keys import EventId
from mitmproxy_acme.store.nodes import Node
from mitmproxy_acme.store.rate_limiter import Bucket
from mitmproxy_acme.store.usage_marks import Usage, UsageMark
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH

ID = ServerName("a.example.test")
_CA = keys.key_part(DIRECTORY)
STORAGE_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # made of digits: it protects nothing
EVENT = EventId(int(EPOCH * 1000), 1, "node")

# One record of each kind, under its key. Those of certificates are in ``certificates``.
RECORDS: dict[str, bytes] = {
    keys.account_key(DIRECTORY): Account(DIRECTORY, "t", "https://ca.test/a", '{"kty": "EC"}', eab_kid="k",
    eab_hmac_key="h").to_record(),
    keys.backoff_key(ID): Backoff(3, EPOCH + 60, "no", EPOCH).to_record(),
    keys.backoff_key(DIRECTORY): Backoff(1, EPOCH + 60, "down").to_record(),
    keys.budget_key(DIRECTORY, "orders", "account"): Bucket(EPOCH + 60, "").to_record(),
    keys.budget_key(DIRECTORY, "duplicates", "x"): Bucket(EPOCH + 60, ID).to_record(),
    keys.calendar_key(int(EPOCH // 60), ID): str(EPOCH).encode(),
    keys.expired_key(int(EPOCH // 60) - 9, ID): b"",
    keys.renewal_info_key(ID): json.dumps({"id": "r", "info": {"start": EPOCH, "end": EPOCH + 9, "ask_again": EPOCH,
    "explanation_url": ""}}).encode(),
    keys.usage_key(ID): UsageMark(EPOCH, Usage.IDLE, EPOCH).to_record(),
    keys.housekeeping_key(): Walk("a", EPOCH).to_record(),
    keys.node_key("control", "n1"): Node("n1", "control", "1", "h", EPOCH).to_record(EPOCH),
    keys.event_key(EVENT): LoggedEvent(EVENT, EventKind.FAILED, ID, "h", "ca", 1.0, "no", EPOCH, 1, 2).to_record(),
    keys.change_key(EPOCH, 1, "n2", ID): b"",
    keys.lease_key(ID): b"n2 0123456789abcdef 01234567-89ab-cdef-0123-456789abcdef:1:2:3:4",
    keys.request_key(ID): b"person",
    keys.refusal_key(ID): Backoff(1, EPOCH + 9, "no").to_record(),
    keys.challenge_key("http-01", "t" * 43): b"t.t",
    keys.compromised_key(ID): b'{"version": 1, "compromised": "{}"}',
    keys.certificate_key(ID): b'{"version": 1, "ca": "https://ca.test", "chain": "", "key": ""}',
}  # fmt: skip
FIELDS = (
    "version", "directory", "thumbprint", "uri", "key", "contact", "failures", "until", "reason", "since", "full_at",
    "scope", "id", "info",
    "start", "end", "ask_again", "explanation_url", "begun", "usage", "check_at", "after", "begin_at", "role", "host",
    "kind", "machine",
    "ca", "seconds", "retry_at", "more", "left_out", "compromised", "chain", "obtained", "sealed", "key_id",
    "sealed_key", *RECORDS,
)  # fmt: skip
PARTS_OF_KEYS = ("calendar/", "expired/", "/", "~", "00", "59", "+5", "1_0", "-1", "0" * 30, "9" * 400)


def cheap(_: bytes) -> bytes:
    """Return the key of a backup; scrypt's would take longer than all else."""
    return bytes(32)
