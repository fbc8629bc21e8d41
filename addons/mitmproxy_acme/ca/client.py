"""The requests of RFC 8555 and RFC 9773, one method each; all of them block.

This module knows resources and messages; it must not know the order of things, nor wait between them.
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
from ..core.text import one_line
from . import problems
from .challenges import Prover
from .external_account_binding import ExternalAccountBinding
from .key_generation import algorithm
from .network import PATIENT, Network, Redirected
from .reply_checks import require_authorization, require_order
from .transport import Timeout

# The library answers None for error codes that it does not list, one of RFC 8555's own among them.
for _code in ("alreadyReplaced", "invalidProfile", "userActionRequired"):
    messages.ERROR_CODES.setdefault(_code, _code)

# What CAs say where they will not hear of ``replaces`` (RFC 9773 section 5): it was replaced already; or, for want of
# codes of their own, another account ordered it, as it is with every imported certificate, or they know no such one;
# or they fail over it (Pebble 2.10, with a serial number that DER begins with a zero byte, one of 256): a renewal must
# not hang on a courtesy.
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

    ``ca`` is what messages call the CA. Nothing here changes but by ``change_key``: the account's URL is set in one
    assignment, for the library's own way (unset, ask, set) breaks every request of another thread meanwhile. A client
    whose CA was found unreachable stays so: connect another.
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
        """Fetch the directory. A CA that is flooded here is unavailable, whatever the name (RFC 8555 section 6.6).

        ``timeout`` is that of ``Network``, for this and all later requests, which go to the hosts that the directory
        names and to no others.
        """
        with problems.translated(ca, whole=True):
            network = Network(key, algorithm(key), ca_bundle, timeout, directory_url=directory_url)
            try:
                directory = cls.get_directory(directory_url, network)
            except Redirected as error:
                # Not followed: who asks there for every order would be told that of each.
                raise IssuerUnavailable(
                    f"the directory of {ca} has moved to {one_line(error.location, 300) or 'nowhere'}; if that is your "
                    "CA's, write that URL in acme_ca"
                ) from error
            for field in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(directory[field], str):
                    raise TypeError(field)
            network.allow(directory.to_partial_json())
        self = cls(directory, network)
        self.ca, self.key = ca, key
        return self

    def register(self, email: str, bound_by: ExternalAccountBinding | None) -> str:
        """Create the account, or find it by its key (RFC 8555 section 7.3), and return its URL.

        The terms of service are agreed to: the caller has the operator's word for it.
        """
        with problems.translated(self.ca, whole=True):
            binding = None
            if bound_by is not None:
                # The public key alone: the library would put the private one into the request (seen).
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
            # With an empty list of its own the library tells an empty list, too.
            change = messages.UpdateRegistration.from_data(email=email or None, contact=())
            self._post(self.account_uri, change)

    def agree_to_terms(self) -> None:
        """Agree to the terms of service as they are now (section 7.3.3)."""
        with problems.translated(self.ca, whole=True):
            self._post(self.account_uri, messages.UpdateRegistration(terms_of_service_agreed=True))

    @property
    def changes_keys(self) -> bool:
        """Whether the CA lets accounts have another key; ZeroSSL and SSL.com do not, as others report."""
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
        """Give the account up (section 7.3.6)."""
        with problems.translated(self.ca, whole=True):
            self._post(self.account_uri, messages.UpdateRegistration(status="deactivated"))

    @property
    def account_uri(self) -> str:
        """The URL of the account that signs."""
        return str(self.net.account.uri) if self.net.account else ""

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profiles that the directory lists (draft-ietf-acme-profiles); none where it lists none."""
        listed = self.directory.meta.profiles
        return tuple(one_line(name) for name in list(listed)[:_MOST_PROFILES]) if isinstance(listed, Mapping) else ()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Translate errors; once the CA is found unreachable, or no CA at all, ask it nothing more.

        Of fifty orders under way the first that finds the CA silent saves the others from waiting for it in turn.
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

        ``replaces`` names the certificate that this one follows (RFC 9773); a CA that will not hear of that gets the
        order without.
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
        """Look at an order; return it and the CA's Retry-After in seconds, if it gave one."""
        with self._asking():
            response = self._post_as_get(url)
            return messages.Order.from_json(response.json()), problems.retry_after(response)

    def authorization(self, url: str, names: Sequence[ServerName]) -> tuple[messages.Authorization, float | None]:
        """Look at an authorization (section 7.5) of an order for ``names``.

        Return it and the CA's Retry-After in seconds, if it gave one. Raises ``Unfinished`` for one of another name.
        """
        with self._asking():
            response = self._post_as_get(url)
            authorization = messages.Authorization.from_json(response.json())
            require_authorization(self.ca, authorization, names)
            return authorization, problems.retry_after(response)

    def answer(self, challenge: messages.ChallengeBody) -> None:
        """Say that the challenge can be validated (section 7.5.1)."""
        with self._asking():
            self._post(challenge.uri, _Answer())

    def give_up_authorization(self, url: str) -> None:
        """Deactivate an authorization (section 7.5.2), so that a later order validates anew."""
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
        """Fetch the chain (section 7.4.2) as PEM; return it and its alternates' URLs, as far as we ask there."""
        with self._asking():
            response = self._post_as_get(url)
            return response.text, self.net.among(self._get_links(response, "alternate"))[:_MOST_ALTERNATES]

    def revoke_certificate(self, certificate: Certificate, reason: int) -> None:
        """Revoke (section 7.6) as the account, or by the key alone where there is none; ``reason`` is a CRLReason.

        One that is revoked already is no error.
        """
        with self._asking():
            try:
                self.revoke(certificate.leaf, reason)
            except messages.Error as error:
                if error.code != "alreadyRevoked":
                    raise

    def renewal_window(self, certificate: Certificate) -> tuple[float, float, str, float | None] | None:
        """Ask when to renew (RFC 9773 section 4); None where the CA does not say such things.

        Returns start and end (Unix seconds), an URL that explains, and the Retry-After in seconds.
        """
        with problems.translated(self.ca):
            resource = getattr(self.directory, "renewalInfo", None)
            if resource is None or certificate.renewal_id is None:
                return None
            response: requests.Response = self.net.get(f"{resource.rstrip('/')}/{certificate.renewal_id}")
            fields = response.json()
            window = fields["suggestedWindow"]
            start, end = (datetime.datetime.fromisoformat(window[edge]).timestamp() for edge in ("start", "end"))
            if end < start:
                raise ValueError("the window ends before it starts")
            explanation = one_line(str(fields.get("explanationURL", "")))
            return start, end, explanation, problems.retry_after(response)


def _type_of(name: ServerName) -> messages.IdentifierType:
    return messages.IDENTIFIER_IP if is_address(name) else messages.IDENTIFIER_FQDN
