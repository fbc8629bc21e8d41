"""Problem documents (RFC 9457): every kind of problem that the admin API replies with, in one table.

This module knows the URI and the status of each kind, and which error is of which kind; it must not know HTTP requests,
or how a certificate is obtained. A client decides by ``type``, never by the texts.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from acme_storage import StorageError

from ..core import errors
from .documents import Document, timestamp

_URN = "urn:mitmproxy-acme:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem: its URI, the status of the reply, and one sentence for the OpenAPI document."""

    type: str
    status: int
    meaning: str


# For problems that their status describes completely (RFC 9457 section 4.2.1).
ABOUT_BLANK = "about:blank"

NAME_NOT_ALLOWED = ProblemKind(f"{_URN}name-not-allowed", 400, "no option allows a certificate for this name")
SELF_TEST_FAILED = ProblemKind(f"{_URN}self-test-failed", 400, "a challenge for this name would not arrive here")
CROSS_SITE_REQUEST = ProblemKind(f"{_URN}cross-site-request", 403, "another web site sent this change, without a token")
CERTIFICATE_NOT_FOUND = ProblemKind(f"{_URN}certificate-not-found", 404, "no certificate is stored for this name")
WRONG_NODE = ProblemKind(f"{_URN}wrong-node", 409, "a data node cannot do this; ask a control node")
ISSUANCE_FAILED = ProblemKind(f"{_URN}issuance-failed", 500, "the order failed for a reason without a kind of its own")
BACKING_OFF = ProblemKind(f"{_URN}backing-off", 500, "an earlier failure is too recent; nothing was ordered")
CA_LIMIT_REACHED = ProblemKind(f"{_URN}ca-limit-reached", 500, "by our own count the CA allows no further order now")
RATE_LIMITED = ProblemKind(f"{_URN}rate-limited", 500, "the CA refused the order because of its rate limits")
CHALLENGE_FAILED = ProblemKind(f"{_URN}challenge-failed", 500, "the CA could not validate the name")
NAME_REFUSED = ProblemKind(f"{_URN}name-refused", 500, "the CA does not issue certificates for this name")
NOT_OFFERED = ProblemKind(f"{_URN}not-offered", 500, "no configured CA issues this kind of certificate")
ORDER_UNFINISHED = ProblemKind(f"{_URN}order-unfinished", 500, "the CA neither issued nor refused in time")
DELIVERY_REFUSED = ProblemKind(f"{_URN}delivery-refused", 500, "clients would not accept the certificate that came")
SETTINGS_REFUSED = ProblemKind(f"{_URN}settings-refused", 500, "the CA refuses the account, its terms or the options")
ACCOUNT_UNUSABLE = ProblemKind(f"{_URN}account-unusable", 500, "this node cannot read its account at the CA")
RECORD_REFUSED = ProblemKind(f"{_URN}record-refused", 500, "a stored record can be neither used nor replaced")
NO_CONTROL_NODE = ProblemKind(f"{_URN}no-control-node", 500, "this is a data node, and no control node is up")
CA_UNAVAILABLE = ProblemKind(f"{_URN}ca-unavailable", 500, "the CA cannot be reached, or does not answer as a CA")
STORAGE_UNAVAILABLE = ProblemKind(f"{_URN}storage-unavailable", 503, "the storage is down or refused the operation")
STORAGE_LOADING = ProblemKind(f"{_URN}storage-loading", 503, "the certificates are still being read from the storage")
TOO_MANY_WATCHERS = ProblemKind(f"{_URN}too-many-watchers", 503, "too many clients watch the status")
BUSY = ProblemKind(f"{_URN}busy", 503, "the node is working on too many requests")

# The most specific class that is listed here decides.
_BY_ERROR: dict[type, ProblemKind] = {
    errors.NameNotAllowed: NAME_NOT_ALLOWED,
    errors.NotFound: CERTIFICATE_NOT_FOUND,
    errors.WrongNode: WRONG_NODE,
    errors.IssuanceError: ISSUANCE_FAILED,
    errors.BackingOff: BACKING_OFF,
    errors.LimitReached: CA_LIMIT_REACHED,
    errors.RateLimited: RATE_LIMITED,
    errors.ChallengeFailed: CHALLENGE_FAILED,
    errors.NameRefused: NAME_REFUSED,
    errors.NotOffered: NOT_OFFERED,
    errors.Unfinished: ORDER_UNFINISHED,
    errors.DeliveryRefused: DELIVERY_REFUSED,
    errors.SettingsRefused: SETTINGS_REFUSED,
    errors.AccountUnusable: ACCOUNT_UNUSABLE,
    errors.RecordRefused: RECORD_REFUSED,
    errors.NoControlNode: NO_CONTROL_NODE,
    errors.IssuerUnavailable: CA_UNAVAILABLE,
    StorageError: STORAGE_UNAVAILABLE,
}

KINDS: tuple[ProblemKind, ...] = (
    *dict.fromkeys(_BY_ERROR.values()),
    SELF_TEST_FAILED,
    CROSS_SITE_REQUEST,
    STORAGE_LOADING,
    TOO_MANY_WATCHERS,
    BUSY,
)


def kind_of(error: BaseException | None) -> ProblemKind | None:
    """Return the kind of an error; None for one that no client should meet."""
    return next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document. ``kind`` is None where ``status`` says it all.

    ``detail`` may begin with Kong's words; ``reason`` is the same without them. ``retry_at`` (Unix seconds) is when a
    repeated request may succeed; ``stop`` says why no other certificate can be obtained until then either.
    """

    status: int
    detail: str
    kind: ProblemKind | None = None
    reason: str = ""
    retry_at: float | None = None
    stop: str = ""

    def document(self) -> Document:
        return {
            "type": self.kind.type if self.kind is not None else ABOUT_BLANK,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "message": self.detail,  # Kong's name for it
            "reason": self.reason or self.detail,
            "retry_at": timestamp(self.retry_at) if self.retry_at is not None else None,
            "stop": self.stop or None,
        }

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers that belong to this problem; ``now`` is in Unix seconds."""
        headers = {"Content-Type": "application/problem+json"}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_at is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_at - now)))
        return headers


class HttpError(Exception):
    """The request is answered with this ``problem``."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: ProblemKind | None = None,
        reason: str = "",
        retry_at: float | None = None,
        stop: str = "",
    ) -> None:
        """Take what ``Problem`` takes."""
        super().__init__(detail)
        self.problem = Problem(status, detail, kind, reason, retry_at, stop)

    @classmethod
    def of(
        cls, kind: ProblemKind, detail: str, *, reason: str = "", retry_at: float | None = None, stop: str = ""
    ) -> Self:
        """Return the error for a kind of problem, with its status."""
        return cls(kind.status, detail, kind=kind, reason=reason, retry_at=retry_at, stop=stop)
