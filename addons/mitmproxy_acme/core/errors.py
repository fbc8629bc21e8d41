"""What can go wrong, as a tree; code decides by the class, never by the text.

    AcmeError
    ├── ConfigError            an option is wrong: the message names it and says what would be right
    ├── NameNotAllowed         no option allows this name to have a certificate
    ├── CertificateError       a certificate or key cannot be used: broken, no pair, not for the name
    ├── SourceError            the source of an import cannot be read at all
    ├── NotFound               no certificate of that name is stored
    ├── RequestFailed          a proxy's admin API did not do what it was asked
    ├── WrongNode              a node of this role does not do this
    ├── NoControlNode          this is a data node, and no control node is up to order for it
    ├── RecordRefused          a stored record is neither used nor replaced: a person must decide
    │   └── DecryptionFailed   no key of the options opens it
    └── IssuanceError          an order brought no certificate
        ├── BackingOff         not ordered before a certain time: an earlier failure is too recent
        │   ├── ClientLimited  not ordered: this client has brought too many new names
        │   └── LimitReached   not ordered: by our own count, a rate limit of the CA is used up
        ├── ChallengeFailed    the CA could not validate the name
        ├── NameRefused        the CA will not issue for this name to anyone
        ├── NotOffered         the CA issues no certificates of this kind: for addresses, or wildcards
        ├── RateLimited        the CA wants fewer orders for this name
        ├── Unfinished         the CA accepted the order and does not complete it, or completes it for other names
        ├── DeliveryRefused    the CA delivered a certificate that clients would not accept
        ├── SettingsRefused    the CA refuses the account, its terms or the options: change the settings
        │   └── AccountUnknown the CA has forgotten the account: it can be registered again
        ├── AccountUnusable    the stored account at the CA is a record that is refused
        └── IssuerUnavailable  the CA cannot be reached, or does not answer as a CA
            ├── OfAnotherTime  its certificate does not fit the clock of this node
            └── ClockDiffers   nothing was ordered, because none would fit the clock of this node

This module knows the names of the problems of RFC 8555 section 6.7; it must not know any library.
Storage has its own tree: ``acme_storage.StorageError``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 7807) of an ACME server (RFC 8555 section 6.7).

    ``type`` is the part after ``urn:ietf:params:acme:error:``, ``status`` the HTTP status or 0. ``identifiers`` are
    the names of the subproblems, or the one whose authorization failed.
    """

    type: str
    detail: str = ""
    status: int = 0
    identifiers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.detail}" if self.detail else self.type


class AcmeError(Exception):
    """The base of all errors that this addon raises on purpose; the message is one sentence for a person."""


class ConfigError(AcmeError):
    """An option has a wrong value."""


class NameNotAllowed(AcmeError):
    """The policy (``acme_domains``, ``acme_ask``, …) does not allow a certificate for the name."""


class CertificateError(AcmeError):
    """A certificate, chain or private key cannot be used."""


class SourceError(AcmeError):
    """The source of an import cannot be read: unknown kind, no such folder, or it holds no certificates."""


class NotFound(AcmeError):
    """No certificate of that name is stored."""


class RequestFailed(AcmeError):
    """A proxy's admin API does not answer, or answers with an error."""


class WrongNode(AcmeError):
    """Only a node of another role (``acme_role``) does this."""


class NoControlNode(AcmeError):
    """This is a data node, and no control node is up on its storage to order for it."""


class RecordRefused(AcmeError):
    """A stored record is neither used nor replaced: nothing is ordered or created in its place.

    It may be valuable to someone else (a later release, a node with other keys), or it may be forged.
    """


class DecryptionFailed(RecordRefused):
    """A stored record is sealed, and no key of the options opens it."""


class IssuanceError(AcmeError):
    """An order brought no certificate.

    ``problem`` is what the CA answered, if it did; ``retry_after`` is its Retry-After in seconds.
    """

    def __init__(self, message: str, *, problem: Problem | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after = retry_after


class BackingOff(IssuanceError):
    """Not ordered: an earlier failure is too recent. ``until`` is the Unix time of the next attempt."""

    def __init__(self, message: str, *, until: float) -> None:
        super().__init__(message)
        self.until = until


class LimitReached(BackingOff):
    """Not ordered: one of the CA's rate limits is used up until ``until``, so it would refuse. Nothing has failed.

    A refusal by the CA itself is ``RateLimited``.
    """


class ClientLimited(BackingOff):
    """Not ordered: this client has brought too many new names (``acme_orders_per_client``). Others may bring it."""


class ChallengeFailed(IssuanceError):
    """The CA could not validate the name (connection, dns, unauthorized, incorrectResponse, caa, …)."""


class NameRefused(IssuanceError):
    """The CA will not issue for this name (rejectedIdentifier, malformed)."""


class NotOffered(IssuanceError):
    """The CA issues no certificates of this kind (for addresses, wildcards); another CA may."""


class RateLimited(IssuanceError):
    """The CA wants fewer orders of this kind; ``retry_after`` is the wait in seconds, an hour if the CA gave none."""


class Unfinished(IssuanceError):
    """The CA neither issued nor refused in time, or the order cannot be completed (other names, no reason given).

    This does not show that the name is at fault, or that the CA would fail with other names.
    """


class DeliveryRefused(IssuanceError):
    """The CA delivered a certificate that clients would not accept, or one worse than the one it replaces."""


class SettingsRefused(IssuanceError):
    """The CA refuses the account, its key, its binding, its terms or the profile: change the settings."""


class AccountUnknown(SettingsRefused):
    """The CA does not know the account (accountDoesNotExist), as after its reset: register the same key again."""


class AccountUnusable(IssuanceError):
    """The stored account at a CA is a record that is refused (``RecordRefused``), so this node cannot order there."""


class IssuerUnavailable(IssuanceError):
    """The CA cannot be reached, is failing or overloaded, or gives an answer that is not ACME."""


class OfAnotherTime(IssuerUnavailable):
    """The CA delivered a certificate that begins later, or has (nearly) ended, by our clock, which may be wrong."""


class ClockDiffers(IssuerUnavailable):
    """Nothing was ordered: our clock and the CA's differ by so much that its certificate would be of no use."""
