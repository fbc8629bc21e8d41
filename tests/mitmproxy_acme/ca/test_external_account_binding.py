"""What a CA's reply to the request for an external account binding means; end_to_end has a CA that gives them."""

import json
from typing import Any

import pytest
import requests

from mitmproxy_acme.ca.external_account_binding import ExternalAccountBinding, request_binding
from mitmproxy_acme.ca.http.transport import Session
from mitmproxy_acme.core.errors import IssuerUnavailable, SettingsRefused

_GIVEN = {"success": 1, "eab_kid": "kid", "eab_hmac_key": "mac"}
_LONG = "x" * 300


class Asked:
    """Stands in for the connection: keeps the request, and gives the reply."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reply = requests.Response()
        self.request: tuple[str, str, dict[str, Any]] | None = None
        monkeypatch.setattr(Session, "request", self._request)

    def says(self, text: str, status: int = 200, **headers: str) -> None:
        self.reply._content, self.reply.status_code = text.encode(), status
        self.reply.headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    def _request(self, method: str, url: str, **others: Any) -> requests.Response:
        self.request = (method, url, others)
        return self.reply


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.mark.parametrize(("ca_bundle", "verify"), [("", True), ("/ca.pem", "/ca.pem")])
def test_binding_is_asked_for_with_the_address(asked: Asked, ca_bundle: str, verify: bool | str) -> None:
    """In a form, as ZeroSSL reads it, over a connection that is verified; the MAC key is in no repr."""
    asked.says(json.dumps(_GIVEN | {"eab_kid": _LONG}))
    given = request_binding("ca", "https://ca.test/eab", "me+ca@a.test", 7.0, ca_bundle)
    assert given == ExternalAccountBinding(_LONG, "mac", "HS256")
    assert "mac'" not in repr(given)
    assert asked.request == (
        "POST",
        "https://ca.test/eab",
        {
            "data": "email=me%2Bca%40a.test",
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            "timeout": 7.0,
            "verify": verify,
        },
    )


def test_refusal_says_why_and_what_to_do(asked: Asked) -> None:
    asked.says(json.dumps({"success": 0, "error": {"code": 2900, "type": "invalid_email"}}))
    with pytest.raises(SettingsRefused, match=r"^ca gives no .* for me@a.test: invalid_email; correct acme_email, or"):
        request_binding("ca", "https://ca.test/eab", "me@a.test", 7.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(_GIVEN | {"eab_kid": ""}),
        json.dumps(_GIVEN | {"eab_kid": 5}),
        json.dumps(_GIVEN | {"eab_kid": _LONG + "x"}),
        json.dumps(_GIVEN | {"eab_hmac_key": "a b"}),
        json.dumps(_GIVEN | {"eab_hmac_key": "a\nb"}),
        json.dumps({"success": 0, "error": {"type": "two words"}}),
        json.dumps({"success": 0}),
    ],
)
def test_reply_without_a_binding_is_a_fault_of_the_ca(asked: Asked, text: str) -> None:
    """It is asked again when it says so; nothing that it sent is in the error."""
    asked.says(text, 503, Retry_After="120")
    with pytest.raises(IssuerUnavailable, match=r"^ca answered HTTP 503 to the request for an external") as caught:
        request_binding("ca", "https://ca.test/eab", "me@a.test", 7.0)
    assert caught.value.retry_after == 120
