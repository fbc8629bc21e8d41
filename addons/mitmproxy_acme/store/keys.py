"""Places: every key under which something lies in storage, and what a key says when it is read back.

A name stands in a key as it is, and so does an address: the colons of IPv6 are among the characters of storage keys.
What is put around one is therefore neither a colon alone nor anything else that an address or a name may hold.
This module knows the spelling of keys; it must not know what lies there, or who reads it.
"""

import hashlib
from functools import lru_cache
from urllib.parse import urlsplit

from ..core.names import ServerName
from ..core.proof import TXT_TYPES, Proof


def lease_key(what: str) -> str:
    return f"leases/{key_part(what)}"


def calendar_prefix() -> str:
    return "calendar/"


def calendar_key(minute: int, id: str) -> str:
    """Return the key of an entry; minutes are Unix seconds // 60, and hours of one width so that keys sort by time."""
    # By hours for a store of folders, which would have one for each minute; by minutes so that a look reads few.
    return f"calendar/{minute // 60:08d}/{minute % 60:02d}~{id}"


def listed(key: str) -> tuple[int, ServerName]:
    """Return the minute and the name of an entry, by its key. Raises ``ValueError`` for a key that is none."""
    _, hour, rest = key.split("/", 2)
    minute, _, id = rest.partition("~")
    if not id:
        raise ValueError(key)
    return int(hour) * 60 + int(minute), ServerName(id)


def change_prefix() -> str:
    return "changes/"


def changes_before(moment: float) -> str:
    """Return what sorts before all announcements since ``moment`` (Unix seconds), and after those before it."""
    return f"{change_prefix()}{int(moment * 1000):013d}"


def change_key(now: float, number: int, node: str, id: str) -> str:
    """Return the key of an announcement; ``number`` tells apart those of one node."""
    return f"{changes_before(now)}.{number}~{node}~{id}"


def changed(key: str) -> tuple[str, ServerName]:
    """Return which node announced a change of what, by the key of it. Raises ``ValueError`` for a key that is none."""
    _, node, id = key.split("~", 2)
    return node, ServerName(id)


def request_prefix() -> str:
    return "requests/"


def request_key(id: str) -> str:
    return f"requests/{id}"


def refusal_key(id: str) -> str:
    return f"refusals/{id}"


def node_prefix(role: str = "") -> str:
    """Return what the keys of all nodes of a role begin with; of all roles without one."""
    return f"nodes/{role}/" if role else "nodes/"


def node_key(role: str, node: str) -> str:
    return f"nodes/{role}/{node}"


def renewal_info_key(id: str) -> str:
    return f"renewal-info/{id}"


def certificate_prefix() -> str:
    return "certificates/"


def compromised_prefix() -> str:
    return "compromised/"


def compromised_key(id: ServerName) -> str:
    return compromised_prefix() + id


def revocation_scope(id: str) -> str:
    """Return the scope of the lease and the backoff of an unfinished revocation: no name's, for an order is not kept
    from it."""
    return f"{id}~revocation"


def account_prefix() -> str:
    return "accounts/"


def budget_prefix(directory: str, kind: str) -> str:
    """Return the prefix of a CA's token buckets of one kind of limit."""
    return f"budgets/{key_part(directory)}/{kind}/"


def budget_key(directory: str, kind: str, mark: str) -> str:
    return budget_prefix(directory, kind) + mark


def certificate_key(id: ServerName) -> str:
    return certificate_prefix() + id


def account_key(directory: str) -> str:
    return account_prefix() + key_part(directory)


def challenge_prefix(type: str) -> str:
    """Return what the keys of all challenges of a type begin with; those in DNS are records."""
    return f"challenges/{type}/"


def challenge_key(type: str, place: str) -> str:
    return challenge_prefix(type) + place


def record_prefix() -> str:
    return challenge_prefix("txt")


def record_key(name: str, value: str) -> str:
    # The name alone says which type it is of; the value is in the key, so that one listing reads them all.
    return f"{record_prefix()}{name}~{value}"


def proof_key(proof: Proof) -> str:
    of_dns = proof.type in TXT_TYPES
    return record_key(proof.location, proof.value) if of_dns else challenge_key(proof.type, proof.location)


def backoff_prefix() -> str:
    return "backoffs/"


def backoff_key(subject: str) -> str:
    return backoff_prefix() + key_part(subject)


def name_scope(id: str, directory: str) -> str:
    """Return the scope of a backoff that is a name's at one CA."""
    return f"{id}@{key_part(directory)}"


def name_in_scope(scope: str) -> ServerName | None:
    """Return the name that the scope of a backoff is about, at all CAs or at one; None where it is a whole CA's,
    or a revocation's."""
    name = scope.partition("@")[0]
    return None if "://" in name or "~" in name else ServerName(name)


def key_part(what: str) -> str:
    """Return one part of a key for a name or a URL: readable, and distinct for distinct URLs."""
    return _part_of_url(what) if "://" in what else what


@lru_cache(256)
def _part_of_url(url: str) -> str:
    """Return the part for a URL: there are a few, and each order asks for them some times."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return f"{urlsplit(url).hostname or 'ca'}~{digest}"
