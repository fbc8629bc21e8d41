"""What a CA's refusals and accidents mean to a proxy: the one map from foreign errors to ours.

This module knows problem documents (RFC 8555 section 6.7) and what the libraries raise; it must not know what is
being done. ``tests`` hold that every error type of the RFC has its place here.
"""

import contextlib
import dataclasses
import email.utils
import ssl
from collections.abc import Iterator, Sequence

import josepy as jose
import requests
from acme import errors, messages

from ..core.errors import (
    AccountUnknown,
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    NotOffered,
    Problem,
    RateLimited,
    SettingsRefused,
    Unfinished,
)
from ..core.text import one_line
from .allowed_hosts import UrlRefused
from .network import Ignored, Redirected
from .transport import EndlessReply

_RATE_LIMIT_DEFAULT = 3_600.0
_RETRY_AFTER_MOST = 7 * 86_400.0
_OUT_OF_DATE = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_LONGEST_TYPE, _LONGEST_NAME = 100, 255
_LONGEST_DATE = 50
_MOST_SUBPROBLEMS = 100  # as many as names in a certificate
_PREFIX = "urn:ietf:params:acme:error:"

MEANINGS: dict[str, type[IssuanceError]] = {
    "accountDoesNotExist": AccountUnknown,
    "alreadyReplaced": SettingsRefused,
    "alreadyRevoked": SettingsRefused,
    "badCSR": SettingsRefused,
    "badNonce": Unfinished,  # after thirty tries: it is this order's bad luck, and the CA answers
    "badPublicKey": SettingsRefused,
    "badRevocationReason": SettingsRefused,
    "badSignatureAlgorithm": SettingsRefused,
    "caa": ChallengeFailed,
    "compound": ChallengeFailed,
    "connection": ChallengeFailed,
    "dns": ChallengeFailed,
    "dnssec": ChallengeFailed,
    "externalAccountRequired": SettingsRefused,
    "incorrectResponse": ChallengeFailed,
    "invalidContact": SettingsRefused,
    "invalidProfile": SettingsRefused,
    "malformed": NameRefused,
    "orderNotReady": IssuerUnavailable,
    "rateLimited": RateLimited,
    "rejectedIdentifier": NameRefused,
    "serverInternal": IssuerUnavailable,
    "tls": ChallengeFailed,
    "unauthorized": SettingsRefused,
    "unknownHost": ChallengeFailed,
    "unsupportedContact": SettingsRefused,
    "unsupportedIdentifier": NotOffered,
    "userActionRequired": SettingsRefused,
}

# ``josepy`` and ``requests`` both let plain errors through where a reply is not what it should be: no JSON, or one that
# is nested without end, a field of another type, a header missing.
_JUNK = (jose.Error, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@contextlib.contextmanager
def translated(ca: str, *, whole: bool = False) -> Iterator[None]:
    """Raise our errors for theirs. ``ca`` names the CA in the message.

    ``whole`` says that the request was for no order (directory, account): a rate limit then means the whole CA, as
    does a nonce that it refuses each time.
    """
    try:
        yield
    except messages.Error as error:
        meant = from_reply(ca, error, getattr(error, "response", None))
        if whole and isinstance(meant, RateLimited | Unfinished):
            meant = IssuerUnavailable(str(meant), problem=meant.problem, retry_after=meant.retry_after)
        raise meant from error
    except Ignored as error:
        said = f"{ca} does not answer one request, though it answers others"
        raise (IssuerUnavailable if whole else Unfinished)(said) from error
    except requests.RequestException as error:
        raise IssuerUnavailable(f"{ca} cannot be reached: {_reason(error)}") from error
    except UrlRefused as error:
        raise IssuerUnavailable(f"{ca} {error}") from error
    except Redirected as error:
        status, location = error.reply.status_code, one_line(error.location, 100) or "nowhere"
        said = f"{ca} answers with a redirect (HTTP {status} to {location}), and requests of ACME follow none"
        raise IssuerUnavailable(said) from error
    except errors.Error as error:
        response = getattr(error, "response", None)
        raise _not_acme(ca, response) from error
    except _JUNK as error:
        raise IssuerUnavailable(f"{ca} answered something that is not ACME ({type(error).__name__})") from error


def from_reply(ca: str, error: messages.Error, response: requests.Response | None) -> IssuanceError:
    """Return what a problem document in a reply means."""
    problem = as_problem(error, response.status_code if response is not None else 0)
    wait = retry_after(response)
    if problem.type == "rateLimited":
        return RateLimited(_says(ca, problem), problem=problem, retry_after=wait or _RATE_LIMIT_DEFAULT)
    if problem.status >= 500:
        return IssuerUnavailable(_says(ca, problem), problem=problem, retry_after=wait)
    meaning = MEANINGS.get(problem.type, IssuerUnavailable)
    return meaning(_says(ca, problem), problem=problem, retry_after=wait)


def from_authorization(ca: str, authorization: messages.Authorization) -> IssuanceError:
    """Return why an authorization became invalid (RFC 8555 section 7.1.4), or did not become valid in time.

    A CA may go on trying what it could not validate, and tell each failure meanwhile (section 8.2), as step-ca does:
    that is the name's fault. Of one that tells nothing the CA has yet to look at the name at all.
    """
    name = authorization.identifier.value
    failed = [challenge.error for challenge in authorization.challenges if challenge.error is not None]
    if not failed and authorization.status == messages.STATUS_PENDING:
        return Unfinished(f"{ca} did not come to an end with the validation of {name} in time")
    if not failed:
        return ChallengeFailed(f"{ca} could not validate {name} and did not say why")
    problem = dataclasses.replace(as_problem(failed[0]), identifiers=(name,))
    message = f"{ca} could not validate {name}: {problem}"
    if problem.type == "rateLimited":
        return RateLimited(message, problem=problem, retry_after=_RATE_LIMIT_DEFAULT)
    return ChallengeFailed(message, problem=problem)


def from_order(ca: str, names: Sequence[str], order: messages.Order) -> IssuanceError:
    """Return why an order for ``names`` became invalid (RFC 8555 section 7.1.6).

    Whatever the CA says, it is of this order: the CA takes others, and our account is known there.
    """
    if order.error is None:
        return Unfinished(f"{ca} gave up the order for {one_line(', '.join(names))} and did not say why")
    meant = from_reply(ca, order.error, None)
    if meant.problem is not None and meant.problem.type == "unauthorized":
        return ChallengeFailed(str(meant), problem=meant.problem)
    if isinstance(meant, IssuerUnavailable):
        return Unfinished(str(meant), problem=meant.problem)
    return meant


def as_problem(error: messages.Error, status: int = 0) -> Problem:
    """Return a problem document as ours: each text of it one line, and nothing longer or more than a person reads."""
    subproblems = tuple(error.subproblems or ())[:_MOST_SUBPROBLEMS]
    # As text whatever it is: the library does not look.
    values = (str(sub.identifier.value) for sub in subproblems if sub.identifier is not None)
    names = tuple(one_line(value, _LONGEST_NAME) for value in values)
    details = [str(detail or "") for detail in (error.detail or error.title, *(sub.detail for sub in subproblems))]
    text = one_line("; ".join(filter(None, details)))
    return Problem(one_line(str(error.typ).removeprefix(_PREFIX), _LONGEST_TYPE), text, status, names)


def retry_after(response: requests.Response | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 section 10.2.3), date or number; None where there is none.

    The library's own mixes UTC with local time. Never negative, never over a week.
    """
    value = response.headers.get("Retry-After", "").strip() if response is not None else ""
    if not value or len(value) > _LONGEST_DATE:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(value)
            sent = email.utils.parsedate_to_datetime(response.headers["Date"])  # type: ignore[union-attr]
            seconds = (at - sent).total_seconds()  # by the CA's own clock: ours may be wrong
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MOST) if seconds == seconds else None


def _says(ca: str, problem: Problem) -> str:
    return f"{ca} says {problem}"


def _not_acme(ca: str, response: requests.Response | None) -> IssuerUnavailable:
    if response is None:
        return IssuerUnavailable(f"{ca} answered something that is not ACME")
    kind = one_line(response.headers.get("Content-Type", "no content type").split(";")[0], _LONGEST_TYPE)
    return IssuerUnavailable(
        f"{ca} answered HTTP {response.status_code} with {kind}, which is not ACME",
        retry_after=retry_after(response),
    )


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_reason(error)
    if isinstance(error, requests.exceptions.InvalidSchema):
        return "its URL is not https://"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, EndlessReply):
        return "its reply has no end"
    return type(error).__name__


def _tls_reason(error: BaseException) -> str:
    """Return why there was no TLS, by what OpenSSL said beneath the libraries' own errors."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLCertVerificationError):
        found = found.__cause__ or found.__context__
    if found is None:
        return "it speaks no TLS that we do"
    if found.verify_code in _OUT_OF_DATE:
        return "its certificate has expired, or is not valid yet, by the clock of this machine"
    return "its certificate is not trusted; for a private CA name its root in acme_ca_bundle"
