"""Which CA is asked to revoke a certificate by its own key, and which root it is trusted by."""

from typing import Any

import josepy as jose
import pytest

from mitmproxy_acme.ca import revoke_with_key
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.known_cas import ALIASES
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.core.errors import SettingsRefused
from tests.mitmproxy_acme.fakes import RSA_KEY, make_certificate

_OURS, _OTHER = "https://ours.test/directory", "https://other.test/directory"
_PUBLIC = ALIASES["letsencrypt"].directory
_ENTRY = CaSettings("our-ca", ca_bundle="/ours.pem")


class Asked:
    """Keeps how the client was made, and what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: tuple[Any, ...] = ()
        self.revoked: tuple[Any, ...] = ()
        monkeypatch.setattr(Client, "connect", self._connect)

    def _connect(self, *given: Any) -> "Asked":
        self.made = given
        return self

    def revoke_certificate(self, *given: Any) -> None:
        self.revoked = given


@pytest.mark.parametrize(
    ("ca", "name", "bundle"),
    [(_OURS, "our-ca", "/ours.pem"), (_OTHER, _OTHER, "/ours.pem"), (_PUBLIC, "letsencrypt", "")],
)
@pytest.mark.parametrize(("key", "kind"), [(None, jose.JWKEC), (RSA_KEY, jose.JWKRSA)])
def test_ca_of_the_certificate_is_asked(
    monkeypatch: pytest.MonkeyPatch, ca: str, name: str, bundle: str, key: Any, kind: type[jose.JWK]
) -> None:
    """Under the name of the options, or of the known CA; a public one needs no root of ours."""
    asked, certificate = Asked(monkeypatch), make_certificate(["a.test"], ca=ca, key=key)
    revoke_with_key.revoke_by_key(certificate, 4, _ENTRY, _OURS, 5.0)
    given_name, directory, jwk, *rest = asked.made
    assert (given_name, directory, rest) == (name, ca, [bundle, 5.0])
    assert type(jwk) is kind
    assert jwk.key.private_numbers() == certificate.key.private_numbers()
    assert asked.revoked == (certificate, 4)


def test_certificate_of_an_unknown_ca_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported one may not say who issued it."""
    asked = Asked(monkeypatch)
    with pytest.raises(SettingsRefused, match=r"^a.test: it is not known which CA issued the certificate"):
        revoke_with_key.revoke_by_key(make_certificate(["a.test"], ca="imported"), 1, _ENTRY, _OURS, 5.0)
    assert asked.made == ()
