"""Every storage key is spelt here, and parsed back here.

Names and IP addresses are part of keys as they are: storage keys may contain the colons of IPv6. So separators are
neither a colon alone nor any other character of a name or address. This module knows the spelling of keys; it must not
know what is stored there, or who reads it.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from ..core.names import ServerName
from ..core.proof import TXT_TYPES, Proof

# What is stored, by the first part of its key.
ACCOUNTS_PREFIX = "accounts/"
BACKOFFS_PREFIX = "backoffs/"
BUDGETS_PREFIX = "budgets/"
CALENDAR_PREFIX = "calendar/"
CERTIFICATES_PREFIX = "certificates/"
CHALLENGES_PREFIX = "challenges/"
CHANGES_PREFIX = "changes/"
COMPROMISED_PREFIX = "compromised/"
EVENTS_PREFIX = "events/"
EXPIRED_PREFIX = "expired/"
HOUSEKEEPING_PREFIX = "housekeeping/"
LEASES_PREFIX = "leases/"
PROBES_PREFIX = "probes/"
REFUSALS_PREFIX = "refusals/"
RENEWAL_INFO_PREFIX = "renewal-info/"
REQUESTS_PREFIX = "requests/"
USAGE_PREFIX = "usage/"

HOUSEKEEPING_SCOPE = "~housekeeping"
"""The scope of the housekeeper's lease; no name has it."""


def lease_key(what: str) -> str:
    return LEASES_PREFIX + key_part(what)


def probe_key(writer: str) -> str:
    """Return the key under which ``writer`` tests whether the storage can be written."""
    return PROBES_PREFIX + writer


_BY_MINUTE = re.compile(r"(?:calendar|expired)/([0-9]{8})/([0-5][0-9])~(.+)")


def calendar_key(minute: int, id: str) -> str:
    """Return the key of a check; ``minute`` is Unix seconds // 60. Hours have one width, so that keys sort by time."""
    return _by_minute(CALENDAR_PREFIX, minute, id)


def expired_key(minute: int, id: str) -> str:
    """Return the key that lists a certificate that ended in ``minute`` (Unix seconds // 60)."""
    return _by_minute(EXPIRED_PREFIX, minute, id)


def _by_minute(prefix: str, minute: int, id: str) -> str:
    # By hours for stores with folders, which would have one for each minute; by minutes so that a pass reads few.
    return f"{prefix}{minute // 60:08d}/{minute % 60:02d}~{id}"


def parse_minute_key(key: str) -> tuple[int, ServerName]:
    """Return the minute and the id in a key of the calendar, or of the list of expired certificates.

    Raises ``ValueError`` for any other key.
    """
    # Exactly as we spell them: for another spelling of a minute, what removes an entry would not find it.
    match = _BY_MINUTE.fullmatch(key)
    if match is None:
        raise ValueError(key)
    return int(match[1]) * 60 + int(match[2]), ServerName(match[3])


def housekeeping_key() -> str:
    """Return the key that says how far the walk over all certificates has come."""
    return f"{HOUSEKEEPING_PREFIX}walk"


_CHANGE = re.compile(r"changes/([0-9]{13})\.")


def changes_before(moment: float) -> str:
    """Return a string that sorts before all announcements since ``moment`` (Unix seconds), and after earlier ones."""
    return f"{CHANGES_PREFIX}{int(moment * 1000):013d}"


def change_key(now: float, number: int, node: str, id: str) -> str:
    """Return the key of an announcement; ``number`` distinguishes those of one node."""
    return f"{changes_before(now)}.{number}~{node}~{id}"


def parse_change_key(key: str) -> tuple[str, ServerName]:
    """Return the node and the id of an announced change. Raises ``ValueError`` for any other key."""
    _, node, id = key.split("~", 2)
    return node, ServerName(id)


def parse_change_time(key: str) -> float:
    """Return when a change was announced (Unix seconds). Raises ``ValueError`` for any other key."""
    match = _CHANGE.match(key)
    if match is None:
        raise ValueError(key)
    return int(match[1]) / 1000


_MARK = re.compile(r"changes/~[0-9A-Za-z.]{1,64}")


def mark_key(mark: str) -> str:
    """Return the key of a mark that stays for as long as the storage keeps what it has.

    It is listed with the announcements, behind all of them, so that looking for it costs no call.
    """
    return f"{CHANGES_PREFIX}~{mark}"


def is_mark_key(key: str) -> bool:
    return _MARK.fullmatch(key) is not None


class EventId(NamedTuple):
    """An event of one node: when (Unix milliseconds), and the node's own number of it. Sorts by time."""

    moment: int
    number: int
    node: str

    def __str__(self) -> str:
        return f"{self.moment:013d}.{self.number}~{self.node}"


_LAST_MOMENT = 10**13 - 1  # in the year 2286
_EVENT = re.compile(r"events/([0-9]{13})\.(0|[1-9][0-9]{0,8})~([0-9A-Za-z_-]{1,64})")


def events_after(moment: float) -> str:
    """Return a string that sorts after all events later than ``moment`` (Unix seconds), and before earlier ones."""
    return f"{EVENTS_PREFIX}{_LAST_MOMENT - int(moment * 1000):013d}"


def event_key(id: EventId) -> str:
    """Return the key of an event: the later, the earlier it sorts."""
    return f"{EVENTS_PREFIX}{_LAST_MOMENT - id.moment:013d}.{id.number}~{id.node}"


def parse_event_key(key: str) -> EventId:
    """Return what ``event_key`` wrote. Raises ``ValueError`` for any other key."""
    match = _EVENT.fullmatch(key)
    if match is None:
        raise ValueError(key)
    return EventId(_LAST_MOMENT - int(match[1]), int(match[2]), match[3])


def request_key(id: str) -> str:
    return REQUESTS_PREFIX + id


def refusal_key(id: str) -> str:
    return REFUSALS_PREFIX + id


def node_prefix(role: str = "") -> str:
    """Return the prefix of the keys of all nodes with a role; of all nodes without one."""
    return f"nodes/{role}/" if role else "nodes/"


def node_key(role: str, node: str) -> str:
    return f"nodes/{role}/{node}"


def renewal_info_key(id: str) -> str:
    return RENEWAL_INFO_PREFIX + id


def usage_key(id: str) -> str:
    """Return the key of the mark that says whether a client has asked for a certificate."""
    return USAGE_PREFIX + id


def compromised_key(id: ServerName) -> str:
    return COMPROMISED_PREFIX + id


def revocation_scope(id: str) -> str:
    """Return the scope of the lease and the backoff of an unfinished revocation.

    It differs from the name's own scope: a failed revocation does not block orders.
    """
    return f"{id}~revocation"


def check_scope(id: str) -> str:
    """Return the scope of the lease of a check for renewal; the lease of an order has the name's own scope."""
    return f"{id}~check"


def budget_prefix(directory: str, kind: str) -> str:
    """Return the prefix of a CA's token buckets of one kind of limit."""
    return f"{BUDGETS_PREFIX}{key_part(directory)}/{kind}/"


def budget_key(directory: str, kind: str, mark: str) -> str:
    return budget_prefix(directory, kind) + mark


def certificate_key(id: ServerName) -> str:
    return CERTIFICATES_PREFIX + id


def account_key(directory: str) -> str:
    return ACCOUNTS_PREFIX + key_part(directory)


def challenge_prefix(type: str) -> str:
    """Return the prefix of the keys of all challenges of a type; TXT records have ``TXT_RECORDS_PREFIX``."""
    return f"{CHALLENGES_PREFIX}{type}/"


TXT_RECORDS_PREFIX = challenge_prefix("txt")


def challenge_key(type: str, location: str) -> str:
    return challenge_prefix(type) + location


def txt_record_key(name: str, value: str) -> str:
    # The name tells which challenge type it is; the value is in the key, so that one listing reads all records.
    return f"{TXT_RECORDS_PREFIX}{name}~{value}"


def proof_key(proof: Proof) -> str:
    if proof.type in TXT_TYPES:
        return txt_record_key(proof.location, proof.value)
    return challenge_key(proof.type, proof.location)


def backoff_key(subject: str) -> str:
    return BACKOFFS_PREFIX + key_part(subject)


def name_scope(id: str, directory: str) -> str:
    """Return the scope of the backoff of a name at one CA."""
    return f"{id}@{key_part(directory)}"


def name_in_scope(scope: str) -> ServerName | None:
    """Return the name in the scope of a backoff, at all CAs or at one; None for a CA's or a revocation's scope."""
    name = scope.partition("@")[0]
    return None if "://" in name or "~" in name else ServerName(name)


def key_part(what: str) -> str:
    """Return one part of a key for a name or a URL: readable, and distinct for distinct URLs."""
    return _part_of_url(what) if "://" in what else what


@lru_cache(256)
def _part_of_url(url: str) -> str:
    """Return the key part of a URL; cached, because each order asks for the same few URLs several times."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return f"{urlsplit(url).hostname or 'ca'}~{digest}"
