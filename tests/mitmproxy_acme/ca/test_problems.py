"""From a CA's refusals to our errors."""

import email.utils
from collections.abc import Callable
from typing import Any

import josepy as jose
import pytest
import requests
from acme import errors, messages

from mitmproxy_acme.ca import problems
from mitmproxy_acme.core.errors import (
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    NotOffered,
    RateLimited,
    SettingsRefused,
)

RFC_8555_SECTION_6_7 = {
    "accountDoesNotExist",
    "alreadyRevoked",
    "badCSR",
    "badNonce",
    "badPublicKey",
    "badRevocationReason",
    "badSignatureAlgorithm",
    "caa",
    "compound",
    "connection",
    "dns",
    "externalAccountRequired",
    "incorrectResponse",
    "invalidContact",
    "malformed",
    "orderNotReady",
    "rateLimited",
    "rejectedIdentifier",
    "serverInternal",
    "tls",
    "unauthorized",
    "unsupportedContact",
    "unsupportedIdentifier",
    "userActionRequired",
}


def reply(status: int = 400, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def problem(type: str, response: requests.Response | None = None, **fields: Any) -> messages.Error:
    error = messages.Error.from_json({"type": f"urn:ietf:params:acme:error:{type}", **fields})
    if response is not None:
        error.response = response
    return error


def meaning(error: Exception, *, whole: bool = False) -> IssuanceError:
    with pytest.raises(IssuanceError) as caught, problems.translated("ca.test", whole=whole):
        raise error
    return caught.value


def test_every_type_of_the_rfc_has_a_meaning() -> None:
    """RFC 8555's errors, and those of RFC 9773 and the profiles draft, are all on the map."""
    assert problems.MEANINGS.keys() >= RFC_8555_SECTION_6_7
    assert {"alreadyReplaced", "invalidProfile"} <= problems.MEANINGS.keys()


@pytest.mark.parametrize(
    ("type", "status", "expected"),
    [
        ("connection", 400, ChallengeFailed),
        ("caa", 403, ChallengeFailed),
        ("rejectedIdentifier", 400, NameRefused),
        ("unsupportedIdentifier", 400, NotOffered),
        ("unauthorized", 403, SettingsRefused),
        ("serverInternal", 500, IssuerUnavailable),
        ("malformed", 503, IssuerUnavailable),
        ("neverHeardOf", 400, IssuerUnavailable),
    ],
)
def test_meaning_of_a_problem(type: str, status: int, expected: type[IssuanceError]) -> None:
    """The class tells what to do; status 5xx is the CA's fault whatever it says."""
    error = meaning(problem(type, reply(status), detail="why"))
    assert isinstance(error, expected)
    assert str(error) == f"ca.test says {type}: why"
    assert error.problem is not None
    assert error.problem.status == status


def test_rate_limit_of_a_name_and_of_the_ca() -> None:
    """A 429 concerns the name, unless the request was for none; its Retry-After is kept, and an hour without one."""
    limited = problem("rateLimited", reply(429, Retry_After="120"))
    assert (type(meaning(limited)), meaning(limited).retry_after) == (RateLimited, 120)
    assert type(meaning(limited, whole=True)) is IssuerUnavailable
    assert meaning(limited, whole=True).retry_after == 120
    assert meaning(problem("rateLimited", reply(429))).retry_after == 3_600


def _raise(error: Exception) -> Callable[[], Exception]:
    return lambda: error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (requests.ConnectionError(), "no connection"),
        (requests.Timeout(), "does not answer in time"),
        (requests.exceptions.SSLError(), "no TLS version or cipher in common"),
        (requests.exceptions.ChunkedEncodingError(), "ChunkedEncodingError"),
        (requests.exceptions.InvalidSchema("ftp://"), "its URL is not https://"),
        (errors.ClientError("html"), "is not ACME"),
        (errors.MissingNonce(reply()), "is not ACME"),
        (jose.DeserializationError("x"), "is not ACME (DeserializationError)"),
        (ValueError("x"), "is not ACME (ValueError)"),
        (KeyError("Location"), "is not ACME (KeyError)"),
    ],
)
def test_accident_is_the_ca_being_unavailable(error: Exception, said: str) -> None:
    """Whatever the libraries raise over junk or a dead line is one sentence of ours."""
    found = meaning(error)
    assert isinstance(found, IssuerUnavailable)
    assert said in str(found)
    assert "\n" not in str(found)


def _leaves(base: type[BaseException]) -> set[type[BaseException]]:
    below = base.__subclasses__()
    return {base}.union(*(_leaves(cls) for cls in below))


def test_every_foreign_error_is_mapped() -> None:
    """A new class in the libraries falls under a base that the map knows."""
    known = (messages.Error, requests.RequestException, errors.Error, *problems._JUNK)
    foreign = _leaves(errors.Error) | _leaves(jose.Error) | _leaves(requests.RequestException)
    assert [cls for cls in foreign if not issubclass(cls, known)] == []


def test_subproblems_are_told() -> None:
    """The names that subproblems speak of, and what they say, are in the problem; it is one line, and not a page."""
    sub = {
        "type": "urn:ietf:params:acme:error:rejectedIdentifier",
        "detail": "on the\nblocklist",
        "identifier": {"type": "dns", "value": "bad.test"},
    }
    error = meaning(problem("compound", detail="x" * 1_000, subproblems=[sub]))
    assert error.problem is not None
    assert error.problem.identifiers == ("bad.test",)
    assert len(str(error)) < 600
    short = meaning(problem("compound", detail="no", subproblems=[sub]))
    assert str(meaning(problem("dns", detail="a\x1b[2J\x07b"))) == "ca.test says dns: a?[2J?b"
    assert "no; on the blocklist" in str(short)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("5", 5), ("1.5", 1.5), ("0", 0), ("-3", 0), ("999999999", 7 * 86_400), ("", None), ("soon", None), ("nan", None)],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    """Numbers are limited to between zero and a week, invalid values ignored."""
    assert problems.retry_after(reply(Retry_After=header)) == seconds


def test_retry_after_as_a_date_is_measured_by_the_cas_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date counts from the reply's own Date, in any time zone of ours."""
    monkeypatch.setenv("TZ", "America/New_York")
    sent, again = (email.utils.formatdate(at, usegmt=True) for at in (1_000_000, 1_000_060))
    assert problems.retry_after(reply(Date=sent, Retry_After=again)) == 60
    assert problems.retry_after(reply(Retry_After=again)) is None
    assert problems.retry_after(None) is None


@pytest.mark.parametrize(
    "junk", ["soon", "1 Jan 99999999999999999999 00:00:00 GMT", "Fri, 32 Dec 2027 00:00:00 GMT", ""]
)
def test_retry_after_with_a_date_that_is_none_is_ignored(junk: str) -> None:
    """The CA's own date too; neither may end an order with another error than the CA's."""
    good = email.utils.formatdate(1_000_000, usegmt=True)
    assert problems.retry_after(reply(Date=good, Retry_After=junk)) is None
    assert problems.retry_after(reply(Date=junk, Retry_After=good)) is None
    # A time without a zone cannot be subtracted from one that has one.
    assert problems.retry_after(reply(Date=good, Retry_After="Thu, 01 Jan 2026 00:00:00 -0000")) is None


def test_retry_after_is_no_longer_than_a_date() -> None:
    assert problems.retry_after(reply(Retry_After="5".rjust(50, "0"))) == 5
    assert problems.retry_after(reply(Retry_After="5".rjust(51, "0"))) is None


def test_reason_of_a_failed_authorization() -> None:
    """People read the challenge's own error."""
    failed = messages.Authorization.from_json(
        {
            "identifier": {"type": "dns", "value": "a.test"},
            "status": "invalid",
            "challenges": [
                {"type": "dns-persist-01", "url": "https://ca.test/1", "status": "pending"},
                {
                    "type": "http-01",
                    "url": "https://ca.test/2",
                    "status": "invalid",
                    "token": "A" * 43,
                    "error": {"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN"},
                },
            ],
        }
    )
    error = problems.from_authorization("ca.test", failed)
    still_trying = problems.from_authorization("ca.test", failed.update(status=messages.STATUS_PENDING))
    assert (type(still_trying), str(still_trying)) == (type(error), str(error))
    assert isinstance(error, ChallengeFailed)
    assert str(error) == "ca.test could not validate a.test: dns: NXDOMAIN"
    assert error.problem is not None
    assert error.problem.identifiers == ("a.test",)


def test_limit_in_a_validation_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the name: it waits for an hour, and its DNS is not to be mended."""
    authorization = messages.Authorization.from_json(
        {
            "identifier": {"type": "dns", "value": "a.test"},
            "status": "invalid",
            "challenges": [
                {
                    "type": "http-01",
                    "status": "invalid",
                    "url": "https://ca.test/1",
                    "token": "A" * 43,
                    "error": {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"},
                }
            ],
        }
    )
    found = problems.from_authorization("ca", authorization)
    assert isinstance(found, RateLimited)
    assert found.retry_after == 3_600
    assert found.problem is not None
    assert found.problem.identifiers == ("a.test",)


def test_url_without_tls_is_named() -> None:
    """As of a directory that a person wrote with http://."""
    said = "ca cannot be reached: its URL is not https://"
    with pytest.raises(IssuerUnavailable, match=said), problems.translated("ca"):
        raise requests.exceptions.InvalidSchema("ftp://")
