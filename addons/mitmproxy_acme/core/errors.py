"""What can go wrong, as a tree; policy reads the class, never the text.

    AcmeError
    ├── ConfigError            an option is wrong: the message names it and says what would be right
    ├── NameNotAllowed         no option lets this name have a certificate
    ├── CertificateError       a certificate or key cannot be used: broken, not a pair, not for the name
    ├── SourceError            what is to be imported cannot be read at all
    ├── NotFound               no such certificate is stored
    ├── RequestFailed          a proxy's admin API did not do what it was asked
    ├── WrongNode              a node of this role does no such thing
    ├── NoControlNode          this is a data node, and no control node is up to order for it
    ├── RecordRefused          a stored record is neither used nor replaced: a person decides
    │   └── DecryptionFailed   no key in the options decrypts it
    └── IssuanceError          no certificate came of an order
        ├── BackingOff         not asked, and not before a certain time: an earlier failure is too recent
        │   ├── ClientLimited  not asked: this client has brought too many new names
        │   └── LimitReached   not asked: by our own account, the CA has no order left for this
        ├── ChallengeFailed    the CA could not validate the name
        ├── NameRefused        the CA will not issue for this name, whoever asks
        ├── NotOffered         the CA issues no certificates of this kind: for addresses, or wildcards
        ├── RateLimited        the CA wants fewer orders for this name
        ├── Unfinished         the CA took the order for this name, and does not come to an end with it, or not to one
        │                      that is for the name
        ├── DeliveryRefused    the CA delivered a certificate that clients would not accept
        ├── SettingsRefused    the CA refuses the account, its terms or the options: other settings must come
        │   └── AccountUnknown the CA has forgotten the account: it can be registered anew
        ├── AccountUnusable    the stored account at the CA is one of the records that are refused
        └── IssuerUnavailable  the CA cannot be reached, or does not answer as a CA

This module knows the names of the problems of RFC 8555 section 6.7; it must not know any library.
Storage has its own tree: ``acme_storage.StorageError``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 7807) of an ACME server (RFC 8555 section 6.7).

    ``type`` is the part after ``urn:ietf:params:acme:error:``, ``status`` the HTTP status or 0, ``identifiers``
    the names that subproblems speak of, or the one whose authorization failed.
    """

    type: str
    detail: str = ""
    status: int = 0
    identifiers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.detail}" if self.detail else self.type


class AcmeError(Exception):
    """Anything that this addon raises on purpose; the message is one sentence for a person."""


class ConfigError(AcmeError):
    """An option has a wrong value."""


class NameNotAllowed(AcmeError):
    """The policy (``acme_domains``, ``acme_ask``, …) does not allow a certificate for the name."""


class CertificateError(AcmeError):
    """A certificate, chain or private key cannot be used."""


class SourceError(AcmeError):
    """The source of an import cannot be read: no such kind, no such folder, nothing in it."""


class NotFound(AcmeError):
    """No certificate of that name is stored."""


class RequestFailed(AcmeError):
    """A proxy's admin API does not answer, or says that it failed."""


class WrongNode(AcmeError):
    """What was asked for is done by a node of another role (``acme_role``)."""


class NoControlNode(AcmeError):
    """This is a data node, and no control node is up on its storage to order the certificate."""


class RecordRefused(AcmeError):
    """A stored record is neither used nor replaced: nothing is ordered, or made, in its place.

    It may be worth something to somebody else (a later release, a node with other keys), or it may be forged.
    """


class DecryptionFailed(RecordRefused):
    """A stored record is encrypted with a key that the options do not give."""


class IssuanceError(AcmeError):
    """No certificate came of an order.

    ``problem`` is what the CA said, if it said something; ``retry_after`` the seconds it asked to be left alone.
    """

    def __init__(self, message: str, *, problem: Problem | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after = retry_after


class BackingOff(IssuanceError):
    """Not asked, as an earlier failure is too recent; ``until`` is the Unix time of the next attempt."""

    def __init__(self, message: str, *, until: float) -> None:
        super().__init__(message)
        self.until = until


class LimitReached(BackingOff):
    """Not asked, as the CA would refuse: one of its rate limits is used up until ``until``. Nothing has failed.

    What the CA refuses itself is ``RateLimited``.
    """


class ClientLimited(BackingOff):
    """Not asked, as the client has brought too many new names (``acme_orders_per_client``): another may bring it."""


class ChallengeFailed(IssuanceError):
    """The CA could not validate the name (connection, dns, unauthorized, incorrectResponse, caa, …)."""


class NameRefused(IssuanceError):
    """The CA will not issue for this name (rejectedIdentifier, malformed)."""


class NotOffered(IssuanceError):
    """The CA has no certificates of this kind (for addresses, wildcards); another may have."""


class RateLimited(IssuanceError):
    """The CA wants fewer orders of this kind; ``retry_after`` says for how long, an hour if the CA did not."""


class Unfinished(IssuanceError):
    """The CA neither issued nor refused in time, or its order is none that can be completed (other names, no reason).

    Nothing says that the name has a fault, or that the CA has one with other names.
    """


class DeliveryRefused(IssuanceError):
    """The CA delivered a certificate that clients would not accept, or that is worse than the one it replaces."""


class SettingsRefused(IssuanceError):
    """The CA refuses the account, its key, its binding, its terms or the profile: other settings must come."""


class AccountUnknown(SettingsRefused):
    """The CA does not know the account (accountDoesNotExist), as after its reset: register the same key anew."""


class AccountUnusable(IssuanceError):
    """The stored account at a CA is a record that is refused (``RecordRefused``), so this node cannot order there."""


class IssuerUnavailable(IssuanceError):
    """The CA cannot be reached, is failing, is flooded, or answers something that is not ACME."""
