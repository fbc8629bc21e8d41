"""What one account says to its CA, request by request; the CA does as it should, or as a test says."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import josepy as jose
import pytest
from acme import jws, messages
from cryptography.hazmat.primitives.serialization import Encoding

from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.external_account_binding import ExternalAccountBinding
from mitmproxy_acme.ca.key_generation import certificate_request, new_account_key, new_certificate_key
from mitmproxy_acme.core.errors import (
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    RateLimited,
    SettingsRefused,
)
from mitmproxy_acme.core.names import ServerName
from tests.mitmproxy_acme.fakes import RSA_KEY, make_certificate
from tests.servers.hostile import ERROR, HostileCa, Reply

NAME = ServerName("a.example.test")


@dataclass(frozen=True)
class Heard:
    """A signed request: where it was sent, as it came, its protected header and its payload."""

    path: str
    raw: bytes
    protected: dict[str, Any]
    payload: Any


class ListeningCa(HostileCa):
    """Keeps what it hears."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.heard: list[Heard] = []

    def answer(self, path: str, posted: bytes) -> Reply | None:
        if posted:
            request = json.loads(posted)
            self.heard.append(Heard(path, posted, decoded(request["protected"]), decoded(request["payload"])))
        return super().answer(path, posted)

    def refuse(self, resource: str, type: str, status: int = 400, **headers: str) -> None:
        """Answer a resource with a problem document from now on."""

        def change(reply: Reply) -> None:
            reply.status, reply.body = status, {"type": f"{ERROR}{type}", "detail": "as told"}
            reply.headers |= {"Content-Type": "application/problem+json"} | headers

        self.change(resource, change)


def decoded(text: str) -> Any:
    plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return json.loads(plain) if plain else None


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[ListeningCa]:
    with ListeningCa(tmp_path / "hostile") as server:
        yield server


def connect(ca: ListeningCa) -> Client:
    return Client.connect("ca.test", ca.directory, new_account_key(), str(ca.ca_bundle))


@pytest.fixture
def client(ca: ListeningCa) -> Client:
    connected = connect(ca)
    connected.use(connected.register("", None))
    ca.heard.clear()
    ca.asked.clear()
    return connected


def test_account_is_made_with_consent_and_contact(ca: ListeningCa) -> None:
    """RFC 8555 section 7.3: the request has the public key, and nothing of the private one."""
    client = connect(ca)
    assert client.account_uri == ""
    assert client.register("a@example.test", None) == f"{ca.base}/account/1"
    (heard,) = ca.heard
    assert heard.payload == {"contact": ["mailto:a@example.test"], "termsOfServiceAgreed": True}
    assert heard.protected["jwk"] == client.key.public_key().to_json()
    client.use(f"{ca.base}/account/1")
    assert client.account_uri == f"{ca.base}/account/1"


def test_account_that_exists_is_found_by_its_key(ca: ListeningCa) -> None:
    """The CA answers 200, and not 201."""

    def found(reply: Reply) -> None:
        reply.status = 200

    ca.change("account", found)
    assert connect(ca).register("", None) == f"{ca.base}/account/1"


def test_binding_names_the_account_of_elsewhere(ca: ListeningCa) -> None:
    """RFC 8555 section 7.3.4: a MAC over the public key alone, by the key that the CA gave."""
    client = connect(ca)
    secret = jose.encode_b64jose(b"s" * 32)
    client.register("", ExternalAccountBinding("kid-1", secret, "HS384"))
    binding = ca.heard[0].payload["externalAccountBinding"]
    assert decoded(binding["protected"]) == {"alg": "HS384", "kid": "kid-1", "url": f"{ca.base}/account"}
    assert decoded(binding["payload"]) == client.key.public_key().to_json()
    assert "d" not in decoded(binding["payload"])


@pytest.mark.parametrize(("email", "contact"), [("new@example.test", ["mailto:new@example.test"]), ("", [])])
def test_contact_is_changed_or_taken_away(ca: ListeningCa, client: Client, email: str, contact: list[str]) -> None:
    """RFC 8555 section 7.3.2."""
    client.change_contact(email)
    assert [(heard.path, heard.payload) for heard in ca.heard] == [("/account/1", {"contact": contact})]


def test_new_terms_are_agreed_to(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.3.3."""
    client.agree_to_terms()
    assert [(heard.path, heard.payload) for heard in ca.heard] == [("/account/1", {"termsOfServiceAgreed": True})]


def test_account_is_deactivated(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.3.6."""
    client.deactivate()
    assert [(heard.path, heard.payload) for heard in ca.heard] == [("/account/1", {"status": "deactivated"})]


def test_key_is_changed_by_both_keys(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.3.5: the old key signs what the new one has signed; the new one signs from then on."""
    old, new = client.key, jose.JWKRSA(key=RSA_KEY)
    assert client.changes_keys
    client.change_key(new)
    client.agree_to_terms()
    changed, after = ca.heard
    inner = jws.JWS.from_json(changed.payload)
    assert changed.path == "/keychange"
    assert jws.JWS.json_loads(changed.raw.decode()).verify(old.public_key())
    assert inner.verify(new.public_key())
    assert json.loads(inner.payload) == {"account": client.account_uri, "oldKey": old.public_key().to_json()}
    header = decoded(changed.payload["protected"])
    assert header["jwk"] == new.public_key().to_json()
    assert (header["url"], "nonce" in header) == (f"{ca.base}/keychange", False)
    assert after.protected["alg"] == "RS256"
    assert jws.JWS.json_loads(after.raw.decode()).verify(new.public_key())
    assert client.key is new
    assert client.prover.key is new


def test_key_that_the_ca_refuses_is_not_used(ca: ListeningCa, client: Client) -> None:
    """The old one signs on."""
    old = client.key
    ca.refuse("keychange", "malformed")
    with pytest.raises(IssuanceError):
        client.change_key(jose.JWKRSA(key=RSA_KEY))
    client.agree_to_terms()
    assert client.key is old
    assert jws.JWS.json_loads(ca.heard[-1].raw.decode()).verify(old.public_key())


def test_ca_that_changes_no_keys(ca: ListeningCa) -> None:
    """Its directory says so."""
    ca.change("directory", lambda reply: reply.body.pop("keyChange"))
    assert not connect(ca).changes_keys


@pytest.mark.parametrize(
    "work",
    [
        lambda client: client.register("", None),
        Client.agree_to_terms,
        Client.deactivate,
        lambda client: client.change_contact(""),
        lambda client: client.change_key(jose.JWKRSA(key=RSA_KEY)),
    ],
)
def test_limit_of_account_requests_is_the_whole_cas(
    ca: ListeningCa, client: Client, work: Callable[[Client], None]
) -> None:
    """It belongs to no order (RFC 8555 section 6.6), so no name has to wait alone."""
    for endpoint in ("account", "keychange"):
        ca.refuse(endpoint, "rateLimited", 429, **{"Retry-After": "77"})
    with pytest.raises(IssuerUnavailable) as caught:
        work(client)
    assert caught.value.retry_after == 77


def test_limit_of_a_directory_is_the_whole_cas(ca: ListeningCa) -> None:
    """A CA that hands out no directory takes no order of any name."""
    ca.refuse("directory", "rateLimited", 429)
    with pytest.raises(IssuerUnavailable):
        connect(ca)


def test_ca_that_failed_is_asked_again_by_the_same_client(ca: ListeningCa, client: Client) -> None:
    """Its answer was an error, yet an answer: no other order is given up."""
    ca.refuse("order", "serverInternal", 500)
    with pytest.raises(IssuerUnavailable):
        client.order((NAME,), "", None)
    ca.heal()
    order, url = client.order((NAME,), "", None)
    assert order.status == messages.STATUS_PENDING
    assert url.startswith(f"{ca.base}/look/")


def test_ca_that_is_none_is_not_asked_again_by_the_same_client(ca: ListeningCa, client: Client) -> None:
    """Fifty running orders do not wait in turn; who connects anew asks again."""

    def page(reply: Reply) -> None:
        reply.status, reply.body = 502, b"<html>Bad Gateway</html>"
        reply.headers["Content-Type"] = "text/html"

    ca.change("order", page)
    for _ in range(3):
        with pytest.raises(IssuerUnavailable, match="answered HTTP 502 with text/html, which is not ACME"):
            client.order((NAME,), "", None)
    assert ca.asked["order"] == 1


@pytest.mark.parametrize("type", ["alreadyReplaced", "unauthorized", "malformed", "serverInternal"])
def test_order_does_not_fail_for_what_it_replaces(ca: ListeningCa, client: Client, type: str) -> None:
    """RFC 9773 section 5: the field is optional, so the order is sent again without it."""

    def refuse(reply: Reply) -> None:
        if "replaces" in ca.heard[-1].payload:
            reply.status, reply.body = 409, {"type": f"{ERROR}{type}"}

    ca.change("order", refuse)
    client.order((NAME,), "tlsserver", "aki.serial")
    first, second = (heard.payload for heard in ca.heard)
    assert first == second | {"replaces": "aki.serial"}
    assert second == {"identifiers": [{"type": "dns", "value": NAME}], "profile": "tlsserver"}


@pytest.mark.parametrize(("type", "replaces"), [("rateLimited", "aki.serial"), ("malformed", None)])
def test_order_that_is_refused_for_another_reason_is_sent_once(
    ca: ListeningCa, client: Client, type: str, replaces: str | None
) -> None:
    """To leave the field out would not help."""
    ca.refuse("order", type)
    with pytest.raises((RateLimited, NameRefused)):
        client.order((NAME,), "", replaces)
    assert ca.asked["order"] == 1


def test_addresses_are_ordered_as_such(ca: ListeningCa, client: Client) -> None:
    """RFC 8738 section 3."""
    client.order((ServerName("192.0.2.1"), NAME), "", None)
    assert ca.heard[-1].payload == {
        "identifiers": [{"type": "ip", "value": "192.0.2.1"}, {"type": "dns", "value": NAME}]
    }


def test_authorization_is_deactivated(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.5.2."""
    order, _ = client.order((NAME,), "", None)
    client.deactivate_authorization_at(order.authorizations[0])
    assert ca.heard[-1].path.startswith("/authorization/")
    assert ca.heard[-1].payload == {"status": "deactivated"}


def test_order_that_is_not_ready_is_no_error(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.4: it is asked again when the CA says; any other refusal ends the order."""
    order, _ = client.order((NAME,), "", None)
    request = certificate_request(new_certificate_key("ecdsa-p256"), (NAME,))
    ca.refuse("finalize", "orderNotReady", 403, **{"Retry-After": "7"})
    assert client.finalize(order, request) == (None, 7)
    ca.refuse("finalize", "badCSR")
    with pytest.raises(SettingsRefused):
        client.finalize(order, request)
    ca.heal()
    finalized, wait = client.finalize(order, request)
    assert finalized is not None
    assert (finalized.status, wait) == (messages.STATUS_VALID, None)
    assert finalized.certificate is not None
    assert client.download(finalized.certificate)[0].count("BEGIN CERTIFICATE") == 2


def test_certificate_is_revoked_once(ca: ListeningCa, client: Client) -> None:
    """RFC 8555 section 7.6: an earlier revocation is no error; a refusal is."""
    certificate = make_certificate([NAME], ca=ca.directory)
    client.revoke_certificate(certificate, 4)
    assert ca.heard[-1].path == "/revoke"
    assert ca.heard[-1].payload == {
        "certificate": jose.encode_b64jose(certificate.leaf.public_bytes(Encoding.DER)),
        "reason": 4,
    }
    ca.refuse("revoke", "alreadyRevoked")
    client.revoke_certificate(certificate, 4)
    ca.refuse("revoke", "badRevocationReason")
    with pytest.raises(SettingsRefused, match="badRevocationReason"):
        client.revoke_certificate(certificate, 4)


def test_window_is_asked_for_by_the_certificates_id(
    ca: ListeningCa, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9773 section 4.1; with the CA's own Retry-After, its words on one line, and without a signature."""
    certificate, paths = make_certificate([NAME], ca=ca.directory), list[str]()
    answer = ca._renewal

    def told(id: str, payload: object) -> Reply:
        paths.append(id)
        return answer(id, payload)

    monkeypatch.setattr(ca, "_renewal", told)
    window = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z"}
    ca.change("renewal", lambda reply: reply.body.update(suggestedWindow=window, explanationURL="https://ca.test/\nx"))
    found = client.renewal_window(certificate)
    assert found is not None
    start, end, explanation, wait = found
    assert (end - start, start, wait) == (86_400, 1_767_312_000, 21_600)
    assert explanation == "https://ca.test/ x"
    assert paths == [certificate.renewal_id]
    assert ca.heard == []


def test_ca_without_renewal_information(ca: ListeningCa) -> None:
    """It is not asked."""
    ca.change("directory", lambda reply: reply.body.pop("renewalInfo"))
    assert connect(ca).renewal_window(make_certificate([NAME], ca=ca.directory)) is None
    assert ca.asked["renewal"] == 0


def test_profiles_are_listed_by_the_directory(ca: ListeningCa) -> None:
    """As many as a person reads; anything but names with descriptions is no list."""
    assert connect(ca).profiles == ()
    many = {f"profile-{number}": "" for number in range(200)}
    ca.change("directory", lambda reply: reply.body.update(meta={"profiles": many}))
    profiles = connect(ca).profiles
    assert len(profiles) == 100
    assert set(profiles) <= many.keys()
