"""The kinds of stored records: which of them move to another storage, and why the others do not.

``store.keys`` spells the keys; a test fails when it has a prefix that this table lacks. This module knows prefixes and
reasons; it must not know what a record contains (``record_rules`` does).
"""

from dataclasses import dataclass

from ..keys import (
    account_prefix,
    backoff_prefix,
    budgets_prefix,
    calendar_prefix,
    certificate_prefix,
    challenges_prefix,
    change_prefix,
    compromised_prefix,
    event_prefix,
    expired_prefix,
    housekeeping_prefix,
    leases_prefix,
    node_prefix,
    probes_prefix,
    refusals_prefix,
    renewal_infos_prefix,
    request_prefix,
    usage_prefix,
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
    Kind(account_prefix(), True, "account keys and external account bindings: a new account has new rate limits"),
    Kind(compromised_prefix(), True, "certificates that have yet to be revoked; a lost one would stay valid"),
    Kind(budgets_prefix(), True, "what is left of the CA's rate limits"),
    Kind(backoff_prefix(), True, "what failed, and when it may be tried again"),
    Kind(calendar_prefix(), True, "when to check which certificate for renewal"),
    Kind(expired_prefix(), True, "which certificates expired when; unlisted ones would stay until the next walk"),
    Kind(renewal_infos_prefix(), True, "what the CA last said about renewing; without it all names ask at once"),
    Kind(usage_prefix(), True, "whether a client has asked for a certificate; without it all are renewed once more"),
    Kind(certificate_prefix(), True, "certificates with their chains and private keys"),
    Kind(leases_prefix(), False, "they belong to processes that use the old storage, and end in seconds"),
    Kind(node_prefix(), False, "each node announces itself in the storage that it uses"),
    Kind(change_prefix(), False, "they say what changed in the old storage; a copy announces what it changes itself"),
    Kind(challenges_prefix(), False, "they belong to orders of nodes that use the old storage"),
    Kind(event_prefix(), False, "what people see of the old storage's nodes; nothing is decided by it"),
    Kind(housekeeping_prefix(), False, "how far the walk has come in the old storage; the new one is walked anew"),
    Kind(probes_prefix(), False, "they only test whether a storage can be written"),
    Kind(request_prefix(), False, "a data node repeats its request in the storage that it uses; they end in 30 s"),
    Kind(refusals_prefix(), False, "the answers to these requests; they end in 10 s"),
)
MOVING = tuple(kind for kind in KINDS if kind.moves)


def kind_of(key: str) -> Kind | None:
    """Return the kind of a record by its key; None for a key that no release of this project writes."""
    return next((kind for kind in KINDS if key.startswith(kind.prefix)), None)
