"""Every kind of problem is in the one table, the OpenAPI document and the reference."""

import inspect
import json
from pathlib import Path

import pytest

from acme_storage import StorageUnavailable
from mitmproxy_acme.admin import problems
from mitmproxy_acme.admin.api import openapi
from mitmproxy_acme.admin.problems import KINDS, HttpError, Problem, ProblemKind, kind_of
from mitmproxy_acme.core import errors
from mitmproxy_acme.core.errors import AcmeError, BackingOff, ConfigError, DecryptionFailed, IssuanceError
from tests.mitmproxy_acme.fakes import EPOCH

_REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "admin-api.md"


def test_types_are_unique() -> None:
    """One URI for each kind, and no kind is missing from the table."""
    kinds = [value for value in vars(problems).values() if isinstance(value, ProblemKind)]
    assert len({kind.type for kind in KINDS}) == len(KINDS)
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize(
    "error",
    [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, IssuanceError)],
    ids=lambda error: str(error.__name__),
)
def test_each_failure_of_an_order_has_a_kind(error: type[IssuanceError]) -> None:
    """A class without one of its own has that of its base, and the status is Kong's."""
    raised = error("no", until=EPOCH) if issubclass(error, BackingOff) else error("no")
    kind = kind_of(raised)
    assert kind is not None
    assert kind.status == 500
    assert (kind is problems.ISSUANCE_FAILED) is (error is IssuanceError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DecryptionFailed("no"), problems.RECORD_REFUSED),
        (StorageUnavailable("down"), problems.STORAGE_UNAVAILABLE),
        (ConfigError("wrong"), None),
        (AcmeError("?"), None),
        (None, None),
    ],
)
def test_kind_of_other_errors(error: Exception | None, kind: ProblemKind | None) -> None:
    """An error that no client should meet has none."""
    assert kind_of(error) is kind


def test_document_of_a_problem() -> None:
    """Kong's words are in detail and message, the reason is without them, and the header gives the seconds."""
    error = HttpError.of(
        problems.BACKING_OFF, "Kong: later", reason="later", retry_at=EPOCH + 60, stop="the CA is down"
    )
    assert error.problem.document() == {
        "type": "urn:mitmproxy-acme:problem:backing-off",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Kong: later",
        "message": "Kong: later",
        "reason": "later",
        "retry_at": "2027-01-15T08:01:00Z",
        "stop": "the CA is down",
    }
    assert error.problem.headers(EPOCH)["Retry-After"] == "60"


def test_status_that_says_it_all() -> None:
    """The type is about:blank, and the reason is the detail."""
    document = Problem(401, "a token is needed").document()
    assert (document["type"], document["reason"], document["retry_at"]) == ("about:blank", "a token is needed", None)


def test_every_kind_is_described() -> None:
    """With its meaning, under its status in the OpenAPI document, and in the reference."""
    responses, reference = openapi.document(token=True)["components"]["responses"], _REFERENCE.read_text()
    for kind in KINDS:
        assert f"`{kind.type}`: {kind.meaning}" in json.dumps(responses[str(kind.status)])
        assert f"| `{kind.type.rpartition(':')[2]}` | {kind.status} | {kind.meaning} |" in reference


@pytest.mark.parametrize(("retry_at", "seconds"), [(EPOCH + 90.4, "90"), (EPOCH + 0.2, "1"), (EPOCH - 5, "1")])
def test_client_is_told_to_wait_for_a_second_at_least(retry_at: float, seconds: str) -> None:
    """Retry-After: 0, or a time in the past, would have it ask in a loop."""
    assert Problem(500, "no", retry_at=retry_at).headers(EPOCH)["Retry-After"] == seconds
