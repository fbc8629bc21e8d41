"""Events: what happens to certificates, and the listeners that are told.

This module knows what can happen; it must not know the listeners (metrics, the page, webhooks, other addons).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .certificate import Certificate
from .names import ServerName, Subject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateObtained:
    """This node obtained a certificate. ``ca`` is the CA as ``acme_ca`` writes it, ``seconds`` the time that it took.

    ``renewal`` says that it replaces one. ``certificate`` carries the private key, for listeners that deploy it.
    """

    subject: Subject
    certificate: Certificate
    ca: str
    seconds: float
    renewal: bool
    node: str


@dataclass(frozen=True, slots=True)
class CertificateFailed:
    """This node's order failed. ``problem`` is the CA's error type (RFC 8555 section 6.7), empty if it gave none.

    ``failures`` counts consecutive failures in the scope that failed: the name's, or the CA's. ``retry_at`` is the Unix
    time of the next attempt, ``seconds`` the time that this one took.
    """

    subject: Subject
    ca: str
    problem: str
    reason: str
    failures: int
    retry_at: float
    node: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CertificateExpiring:
    """A renewal failed, and less than a third of the certificate's lifetime is left: a person should act."""

    subject: Subject
    certificate: Certificate
    reason: str
    node: str


@dataclass(frozen=True, slots=True)
class CertificateRemoved:
    """This node deleted a certificate for all nodes.

    ``revocation`` is the reason of RFC 5280 if the CA revoked it too. ``replaced`` says that another certificate, with
    a new key, was stored in its place first (and published as ``CertificateObtained``).
    """

    id: ServerName
    revocation: str | None
    node: str
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class ExpiredRemoved:
    """This node's housekeeping removed the certificates of these ids, which had expired long ago, for all nodes."""

    ids: frozenset[ServerName]
    node: str


@dataclass(frozen=True, slots=True)
class ChangedElsewhere:
    """Other nodes stored or deleted the certificates of these ids."""

    ids: frozenset[ServerName]


@dataclass(frozen=True, slots=True)
class RenewalScheduled:
    """The CA suggested another renewal window for the certificate of ``id`` (RFC 9773)."""

    id: ServerName


@dataclass(frozen=True, slots=True)
class IdleChanged:
    """This node did not renew a certificate because no client has asked for it; or, not ``idle``, one has now."""

    id: ServerName
    idle: bool


@dataclass(frozen=True, slots=True)
class CheckScheduled:
    """A certificate is to be checked for renewal at ``at`` (Unix seconds), maybe earlier than the next planned check.

    Published after the renewal schedule in storage has it.
    """

    at: float


type Event = (
    CertificateObtained
    | CertificateFailed
    | CertificateExpiring
    | CertificateRemoved
    | ExpiredRemoved
    | ChangedElsewhere
    | RenewalScheduled
    | IdleChanged
    | CheckScheduled
)
type Listener = Callable[[Event], None]


class Events:
    """The listeners of one proxy. Use it from one event loop; listeners must not block."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def publish(self, event: Event) -> None:
        """Tell every listener. A listener that fails is logged; the others are told all the same."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # a listener must never stop a certificate, whatever it raises
                logger.exception("a listener failed at %s", type(event).__name__)
