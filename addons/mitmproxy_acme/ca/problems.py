"""What a CA's refusals and failures mean to a proxy: the one map from foreign errors to ours.

This module knows problem documents (RFC 8555 section 6.7) and what the libraries raise; it must not know what the
request was for. Tests check that every error type of the RFC is listed here.
"""

import contextlib
import dataclasses
import email.utils
import http.client
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
from .http.allowed_hosts import UrlRefused
from .http.network import Ignored, Redirected
from .http.transport import EndlessReply

_RATE_LIMIT_DEFAULT = 3_600.0
_RETRY_AFTER_MOST = 7 * 86_400.0
_OUT_OF_DATE = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_LONGEST_TYPE, _LONGEST_NAME = 100, 255
_LONGEST_DATE = 50
_MOST_SUBPROBLEMS = 100  # as many as a certificate has names
_PREFIX = "urn:ietf:params:acme:error:"

MEANINGS: dict[str, type[IssuanceError]] = {
    "accountDoesNotExist": AccountUnknown,
    "alreadyReplaced": SettingsRefused,
    "alreadyRevoked": SettingsRefused,
    "badCSR": SettingsRefused,
    "badNonce": Unfinished,  # after thirty tries: bad luck of this order; the CA does answer
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

# ``josepy`` and ``requests`` both raise plain errors for a malformed reply: no JSON, or endlessly nested JSON, a field
# of another type, a missing header.
_JUNK = (jose.Error, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@contextlib.contextmanager
def translated(ca: str, *, whole: bool = False) -> Iterator[None]:
    """Translate the libraries' errors to ours. ``ca`` names the CA in messages.

    ``whole`` says that the request belongs to no order (directory, account): a rate limit, or a nonce that is refused
    each time, then concerns the whole CA.
    """
    try:
        yield
    except messages.Error as error:
        translation = from_reply(ca, error, getattr(error, "response", None))
        if whole and isinstance(translation, RateLimited | Unfinished):
            problem, retry_after = translation.problem, translation.retry_after
            translation = IssuerUnavailable(str(translation), problem=problem, retry_after=retry_after)
        raise translation from error
    except Ignored as error:
        message = f"{ca} does not answer one request, though it answers others"
        raise (IssuerUnavailable if whole else Unfinished)(message) from error
    except requests.RequestException as error:
        raise IssuerUnavailable(f"{ca} cannot be reached: {_reason(error)}") from error
    except UrlRefused as error:
        raise IssuerUnavailable(f"{ca} {error}") from error
    except Redirected as error:
        status, location = error.reply.status_code, one_line(error.location, 100) or "nowhere"
        message = f"{ca} answers with a redirect (HTTP {status} to {location}), which ACME clients do not follow"
        raise IssuerUnavailable(message) from error
    except errors.Error as error:
        response = getattr(error, "response", None)
        raise _not_acme(ca, response) from error
    except _JUNK as error:
        raise IssuerUnavailable(f"{ca} gave an answer that is not ACME ({type(error).__name__})") from error


def from_reply(ca: str, error: messages.Error, response: requests.Response | None) -> IssuanceError:
    """Return our error for a problem document in a reply."""
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

    A CA may keep trying and report each failure meanwhile (section 8.2), as step-ca does: then the name is at fault. If
    it reports none, it has not examined the name yet.
    """
    name = authorization.identifier.value
    failed = [challenge.error for challenge in authorization.challenges if challenge.error is not None]
    if not failed and authorization.status == messages.STATUS_PENDING:
        return Unfinished(f"{ca} did not complete the validation of {name} in time")
    if not failed:
        return ChallengeFailed(f"{ca} could not validate {name} and did not say why")
    problem = dataclasses.replace(as_problem(failed[0]), identifiers=(name,))
    message = f"{ca} could not validate {name}: {problem}"
    if problem.type == "rateLimited":
        return RateLimited(message, problem=problem, retry_after=_RATE_LIMIT_DEFAULT)
    return ChallengeFailed(message, problem=problem)


def from_order(ca: str, names: Sequence[str], order: messages.Order) -> IssuanceError:
    """Return why an order for ``names`` became invalid (RFC 8555 section 7.1.6).

    Whatever the CA says concerns only this order: the CA accepts others, and knows our account.
    """
    if order.error is None:
        return Unfinished(f"{ca} cancelled the order for {one_line(', '.join(names))} and did not say why")
    translation = from_reply(ca, order.error, None)
    problem = translation.problem
    if problem is not None and problem.type == "unauthorized":
        return ChallengeFailed(str(translation), problem=problem)
    if isinstance(translation, IssuerUnavailable):
        return Unfinished(str(translation), problem=problem)
    return translation


def as_problem(error: messages.Error, status: int = 0) -> Problem:
    """Return a problem document as ours: each text on one line, of a length that a person can read."""
    subproblems = tuple(error.subproblems or ())[:_MOST_SUBPROBLEMS]
    # Converted to text: the library does not check the type.
    values = (str(sub.identifier.value) for sub in subproblems if sub.identifier is not None)
    names = tuple(one_line(value, _LONGEST_NAME) for value in values)
    details = [str(detail or "") for detail in (error.detail or error.title, *(sub.detail for sub in subproblems))]
    text = one_line("; ".join(filter(None, details)))
    return Problem(one_line(str(error.typ).removeprefix(_PREFIX), _LONGEST_TYPE), text, status, names)


def retry_after(response: requests.Response | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 section 10.2.3), date or number; None if there is none.

    The library's own function mixes UTC with local time. The result is between zero and a week.
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
            seconds = (at - sent).total_seconds()  # by the CA's clock: ours may be wrong
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MOST) if seconds == seconds else None


def _says(ca: str, problem: Problem) -> str:
    return f"{ca} says {problem}"


def _not_acme(ca: str, response: requests.Response | None) -> IssuerUnavailable:
    if response is None:
        return IssuerUnavailable(f"{ca} gave an answer that is not ACME")
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
        return "its reply is too large" if _has_too_many_headers(error) else "no connection"
    if isinstance(error, EndlessReply):
        return "its reply is too large"
    return type(error).__name__


def _has_too_many_headers(error: BaseException) -> bool:
    """Say whether http.client gave up: more headers, or from Python 3.14 interim replies, than it reads."""
    found: BaseException | None = error
    while found is not None and type(found) is not http.client.HTTPException:  # all its subclasses are other errors
        found = found.__cause__ or found.__context__
    return found is not None


def _tls_reason(error: BaseException) -> str:
    """Return why TLS failed, from OpenSSL's error beneath those of the libraries."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLCertVerificationError):
        found = found.__cause__ or found.__context__
    if found is None:
        return "no TLS version or cipher in common"
    if found.verify_code in _OUT_OF_DATE:
        return "its certificate has expired or is not valid yet, by the clock of this machine"
    return "its certificate is not trusted; for a private CA, set acme_ca_bundle to its root"
