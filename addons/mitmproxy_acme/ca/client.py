"""The requests of RFC 8555 and RFC 9773, one method each; all of them block.

This module knows resources and messages; it must not know the sequence of requests, or wait between them.
"""

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import josepy as jose
import requests
from acme import client, errors, jws, messages
from cryptography import x509

from ..core.certificate import Certificate
from ..core.errors import IssuerUnavailable
from ..core.names import ServerName, is_address
from ..core.renewal import is_time
from ..core.text import one_line
from . import problems
from .challenges import Prover
from .external_account_binding import ExternalAccountBinding
from .http.deadline import Timeout
from .http.network import PATIENT, Network, Redirected
from .key_generation import algorithm
from .reply_checks import require_authorization, require_order

# The library returns None for error codes that it does not list, among them one of RFC 8555.
for _code in ("alreadyReplaced", "invalidProfile", "userActionRequired"):
    messages.ERROR_CODES.setdefault(_code, _code)
messages.Status("expired")  # RFC 8555 section 7.1.6; where the library lacks it, the reply would not be ACME

# How CAs refuse ``replaces`` (RFC 9773 section 5): the certificate was replaced already; or, for lack of a code,
# another account ordered it (as with every imported certificate), or the CA does not know it; or the CA fails (Pebble
# 2.10, if the DER serial number begins with a zero byte, one in 256). A renewal must not fail because of this optional
# field.
_NO_REPLACEMENT = frozenset({"alreadyReplaced", "unauthorized", "malformed", "serverInternal"})
_MOST_ALTERNATES = 10  # Let's Encrypt has had three
_MOST_PROFILES = 100


class _NewOrder(messages.NewOrder):
    """newOrder with the ``replaces`` of RFC 9773 section 5."""

    replaces: str | None = jose.field("replaces", omitempty=True)


class _Answer(jose.JSONObjectWithFields):
    """An empty object: whatever the challenge, it says that the CA may validate (RFC 8555 section 7.5.1)."""


class Client(client.ClientV2):
    """One account at one CA. Every method may be called from any thread and raises ``IssuanceError``.

    ``ca`` names the CA in messages. Only ``change_key`` changes a client. ``use`` sets the account's URL in a single
    assignment: the library's own way (unset, ask, set) breaks concurrent requests of other threads. A client whose CA
    could not be reached stays unusable: connect another.
    """

    ca: str
    key: jose.JWK
    net: Network
    prover: Prover
    _lost = ""

    @classmethod
    def connect(
        cls,
        ca: str,
        directory_url: str,
        key: jose.JWK,
        ca_bundle: str,
        timeout: Timeout = PATIENT,
    ) -> Self:
        """Fetch the directory. A rate limit here means that the whole CA is unavailable (RFC 8555 section 6.6).

        ``timeout`` is that of ``Network``, for this and all later requests, which only go to the hosts that the
        directory names.
        """
        with problems.translated(ca, whole=True):
            network = Network(key, algorithm(key), ca_bundle, timeout, directory_url=directory_url)
            try:
                directory = cls.get_directory(directory_url, network)
            except Redirected as error:
                # Not followed: a CA that redirects its directory would answer so for every order.
                raise IssuerUnavailable(
                    f"the directory of {ca} has moved to {one_line(error.location, 300) or 'nowhere'}; if that URL "
                    "belongs to your CA, write it in acme_ca"
                ) from error
            for field in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(directory[field], str):
                    raise TypeError(field)
            network.allow(directory.to_partial_json())
        self = cls(directory, network)
        self.ca, self.key = ca, key
        return self

    def ask_for_time(self) -> None:
        """Send the cheapest request, for the header Date of its reply, which ``net.clock`` hears."""
        with problems.translated(self.ca, whole=True):
            self.net.head(self.directory["newNonce"])

    def register(self, email: str, bound_by: ExternalAccountBinding | None) -> str:
        """Create the account, or find it by its key (RFC 8555 section 7.3), and return its URL.

        Agrees to the terms of service: the caller must know that the operator has accepted them.
        """
        with problems.translated(self.ca, whole=True):
            binding = None
            if bound_by is not None:
                # Only the public key: the library would put the private key into the request (observed).
                binding = messages.ExternalAccountBinding.from_data(
                    self.key.public_key(), bound_by.kid, bound_by.hmac_key, self.directory, bound_by.alg
                )
            registration = messages.NewRegistration.from_data(
                email=email or None, terms_of_service_agreed=True, external_account_binding=binding
            )
            try:
                uri = self.new_account(registration).uri
            except errors.ConflictError as error:
                uri = error.location
            self.net.require(uri)
            return str(uri)

    def use(self, account_uri: str) -> None:
        """Sign as this account from now on."""
        self.net.account = messages.RegistrationResource(uri=account_uri, body=messages.Registration())
        self.prover = Prover(self.key, account_uri)

    def change_contact(self, email: str) -> None:
        """Replace the account's contacts by one, or by none (section 7.3.2)."""
        with problems.translated(self.ca, whole=True):
            # The library only sends an empty list if it is given one.
            change = messages.UpdateRegistration.from_data(email=email or None, contact=())
            self._post(self.account_uri, change)

    def agree_to_terms(self) -> None:
        """Agree to the current terms of service (section 7.3.3)."""
        with problems.translated(self.ca, whole=True):
            self._post(self.account_uri, messages.UpdateRegistration(terms_of_service_agreed=True))

    @property
    def changes_keys(self) -> bool:
        """Whether the CA supports changing account keys; ZeroSSL and SSL.com are reported not to."""
        return hasattr(self.directory, "keyChange")

    def change_key(self, new: jose.JWK) -> None:
        """Replace the account's key by ``new`` (section 7.3.5), and sign with it from now on."""
        with problems.translated(self.ca, whole=True):
            url = self.directory["keyChange"]
            change = {"account": self.account_uri, "oldKey": self.key.public_key().to_json()}
            inner = jws.JWS.sign(json.dumps(change).encode(), key=new, alg=algorithm(new), nonce=None, url=url)
            self._post(url, inner)
        self.net.key, self.net.alg, self.key = new, algorithm(new), new
        self.prover = Prover(new, self.account_uri)

    def deactivate(self) -> None:
        """Deactivate the account (section 7.3.6)."""
        with problems.translated(self.ca, whole=True):
            self._post(self.account_uri, messages.UpdateRegistration(status="deactivated"))

    @property
    def account_uri(self) -> str:
        """The URL of the account that signs."""
        return str(self.net.account.uri) if self.net.account else ""

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profiles that the directory lists (draft-ietf-acme-profiles); none if it lists none."""
        listed = self.directory.meta.profiles
        return tuple(one_line(name) for name in list(listed)[:_MOST_PROFILES]) if isinstance(listed, Mapping) else ()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Translate errors; after the CA was found unreachable, or not to be a CA, send nothing more.

        If the CA is silent, the first of fifty running orders to notice saves the others from waiting in turn.
        """
        if self._lost:
            raise IssuerUnavailable(self._lost)
        try:
            with problems.translated(self.ca):
                yield
        except IssuerUnavailable as error:
            if error.problem is None:
                self._lost = str(error)
            raise

    def order(self, names: tuple[ServerName, ...], profile: str, replaces: str | None) -> tuple[messages.Order, str]:
        """Create an order (section 7.4); return it and its URL.

        ``replaces`` identifies the certificate that this one follows (RFC 9773); if the CA refuses that field, the
        order is sent again without it.
        """
        with self._asking():
            identifiers = [messages.Identifier(typ=_type_of(name), value=name) for name in names]
            wish: dict[str, Any] = {"identifiers": identifiers, "profile": profile or None}
            try:
                response = self._post(self.directory["newOrder"], _NewOrder(**wish, replaces=replaces))
            except messages.Error as error:
                if replaces is None or error.code not in _NO_REPLACEMENT:
                    raise
                response = self._post(self.directory["newOrder"], _NewOrder(**wish))
            order, url = messages.Order.from_json(response.json()), response.headers["Location"]
            require_order(self.ca, order, names)
            if order.status != messages.STATUS_INVALID:
                self.net.require(url, order.finalize, *order.authorizations)
            return order, url

    def order_at(self, url: str) -> tuple[messages.Order, float | None]:
        """Fetch an order; return it and the CA's Retry-After in seconds, if it gave one."""
        with self._asking():
            response = self._post_as_get(url)
            return messages.Order.from_json(response.json()), problems.retry_after(response)

    def authorization(self, url: str, names: Sequence[ServerName]) -> tuple[messages.Authorization, float | None]:
        """Fetch an authorization (section 7.5) of an order for ``names``.

        Return it and the CA's Retry-After in seconds, if it gave one. Raises ``Unfinished`` if it is for another name.
        """
        with self._asking():
            response = self._post_as_get(url)
            authorization = messages.Authorization.from_json(response.json())
            require_authorization(self.ca, authorization, names)
            return authorization, problems.retry_after(response)

    def answer(self, challenge: messages.ChallengeBody) -> None:
        """Tell the CA that it can validate the challenge (section 7.5.1)."""
        with self._asking():
            self._post(challenge.uri, _Answer())

    def deactivate_authorization_at(self, url: str) -> None:
        """Deactivate an authorization (section 7.5.2), so that a later order validates again."""
        with self._asking():
            self._post(url, messages.UpdateAuthorization(status="deactivated"))

    def finalize(
        self, order: messages.Order, request: x509.CertificateSigningRequest
    ) -> tuple[messages.Order | None, float | None]:
        """Send the CSR (section 7.4); return the order, None if the CA is not ready, and its Retry-After."""
        with self._asking():
            try:
                response = self._post(order.finalize, messages.CertificateRequest(csr=request))
            except messages.Error as error:
                if error.code != "orderNotReady":
                    raise
                return None, problems.retry_after(getattr(error, "response", None))
            return messages.Order.from_json(response.json()), problems.retry_after(response)

    def download(self, url: str) -> tuple[str, tuple[str, ...]]:
        """Fetch the chain (section 7.4.2) as PEM; return it and the URLs of its alternates that may be requested."""
        with self._asking():
            response = self._post_as_get(url)
            return response.text, self.net.among(self._get_links(response, "alternate"))[:_MOST_ALTERNATES]

    def revoke_certificate(self, certificate: Certificate, reason: int) -> None:
        """Revoke (section 7.6) as the account, or with the key alone if there is none; ``reason`` is a CRLReason.

        An earlier revocation is no error.
        """
        with self._asking():
            try:
                self.revoke(certificate.leaf, reason)
            except messages.Error as error:
                if error.code != "alreadyRevoked":
                    raise

    def renewal_window(self, certificate: Certificate) -> tuple[float, float, str, float | None] | None:
        """Ask when to renew (RFC 9773 section 4); None if the CA or the certificate does not support it.

        Returns start and end (Unix seconds), a URL with an explanation, and the Retry-After in seconds.
        """
        with problems.translated(self.ca):
            resource = getattr(self.directory, "renewalInfo", None)
            if resource is None or certificate.renewal_id is None:
                return None
            response: requests.Response = self.net.get(f"{resource.rstrip('/')}/{certificate.renewal_id}")
            fields = response.json()
            window = fields["suggestedWindow"]
            start, end = (datetime.datetime.fromisoformat(window[edge]).timestamp() for edge in ("start", "end"))
            if end < start or not (is_time(start) and is_time(end)):
                raise ValueError("the window ends before it starts, or is at no time that a clock shows")
            explanation = one_line(str(fields.get("explanationURL", "")))
            return start, end, explanation, problems.retry_after(response)


def _type_of(name: ServerName) -> messages.IdentifierType:
    return messages.IDENTIFIER_IP if is_address(name) else messages.IDENTIFIER_FQDN
