"""The kinds of stored records: which of them move to another storage, and why the others do not.

``store.keys`` spells the keys; a test fails when it has a prefix that this table lacks. This module knows prefixes and
reasons; it must not know what a record contains (``record_rules`` does).
"""

from dataclasses import dataclass

from ..keys import (
    ACCOUNTS_PREFIX,
    BACKOFFS_PREFIX,
    BUDGETS_PREFIX,
    CALENDAR_PREFIX,
    CERTIFICATES_PREFIX,
    CHALLENGES_PREFIX,
    CHANGES_PREFIX,
    COMPROMISED_PREFIX,
    EVENTS_PREFIX,
    EXPIRED_PREFIX,
    HOUSEKEEPING_PREFIX,
    LEASES_PREFIX,
    PROBES_PREFIX,
    REFUSALS_PREFIX,
    RENEWAL_INFO_PREFIX,
    REQUESTS_PREFIX,
    USAGE_PREFIX,
    node_prefix,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """All records under ``prefix``; ``why`` they move or do not move."""

    prefix: str
    moves: bool
    why: str

    @property
    def name(self) -> str:
        """The prefix without its slash, as commands show it."""
        return self.prefix.removesuffix("/")


# In the order in which they are copied. The schedule comes before the certificates, so that no kill in between leaves a
# certificate that no node renews.
KINDS = (
    Kind(ACCOUNTS_PREFIX, True, "account keys and external account bindings: a new account has new rate limits"),
    Kind(COMPROMISED_PREFIX, True, "certificates that have yet to be revoked; a lost one would stay valid"),
    Kind(BUDGETS_PREFIX, True, "what is left of the CA's rate limits"),
    Kind(BACKOFFS_PREFIX, True, "what failed, and when it may be tried again"),
    Kind(CALENDAR_PREFIX, True, "when to check which certificate for renewal"),
    Kind(EXPIRED_PREFIX, True, "which certificates expired when; unlisted ones would stay until the next walk"),
    Kind(RENEWAL_INFO_PREFIX, True, "what the CA last said about renewing; without it all names ask at once"),
    Kind(USAGE_PREFIX, True, "whether a client has asked for a certificate; without it all are renewed once more"),
    Kind(CERTIFICATES_PREFIX, True, "certificates with their chains and private keys"),
    Kind(LEASES_PREFIX, False, "they belong to processes that use the old storage, and end in seconds"),
    Kind(node_prefix(), False, "each node announces itself in the storage that it uses"),
    Kind(CHANGES_PREFIX, False, "they say what changed in the old storage; a copy announces what it changes itself"),
    Kind(CHALLENGES_PREFIX, False, "they belong to orders of nodes that use the old storage"),
    Kind(EVENTS_PREFIX, False, "what people see of the old storage's nodes; nothing is decided by it"),
    Kind(HOUSEKEEPING_PREFIX, False, "how far the walk has come in the old storage; the new one is walked anew"),
    Kind(PROBES_PREFIX, False, "they only test whether a storage can be written"),
    Kind(REQUESTS_PREFIX, False, "a data node repeats its request in the storage that it uses; they end in 30 s"),
    Kind(REFUSALS_PREFIX, False, "the answers to these requests; they end in 10 s"),
)
MOVING = tuple(kind for kind in KINDS if kind.moves)


def kind_of(key: str) -> Kind | None:
    """Return the kind of a record by its key; None for a key that no release of this project writes."""
    return next((kind for kind in KINDS if key.startswith(kind.prefix)), None)
