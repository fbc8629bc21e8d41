"""OpenSSL contexts: one per certificate, hardened as ``acme_tls_profile`` says, bounded, built once.

This module knows pyOpenSSL, mitmproxy's helper and its TLS options; it must not know which certificate a client
gets. mitmproxy's certstore is not used: it is rebuilt whenever an option changes, caches chains by file name, and
checks the key again at each connection.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cachetools import TLRUCache
from mitmproxy.addons import tlsconfig
from mitmproxy.certs import DHParams
from mitmproxy.net import tls as net_tls
from OpenSSL import SSL

from ...core.certificate import Certificate

# A context takes 23 KiB, and 0.75 ms to build (measured); a certificate without one takes less than 1 KiB.
_MOST_CONTEXTS = 1_024
# The key of a context's session tickets is as old as the context. Anyone who gets the key can read recorded connections
# of TLS 1.2 with such tickets (RFC 5077 section 5.5). cryptography's binding cannot replace the key, so the context is
# replaced: after longer than a ticket is valid (two hours), and not all contexts at once.
_LIFETIME, _LIFETIME_SPREAD = 3 * 3_600.0, 3_600.0

type _Key = tuple[bytes, tuple[str, ...]]

TLS_OPTIONS = frozenset(
    {
        "ciphers_client",
        "http2",
        "request_client_cert",
        "tls_ecdh_curve_client",
        "tls_version_client_max",
        "tls_version_client_min",
    }
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is offered unless the user changed mitmproxy's option; None leaves mitmproxy's default."""

    minimum: net_tls.Version | None = None
    ciphers: tuple[str, ...] | None = None
    groups: str | None = None


# https://wiki.mozilla.org/Security/Server_Side_TLS: the suites for ECDSA and RSA certificates, without finite-field
# Diffie-Hellman, which only clients older than TLS 1.2 need.
_INTERMEDIATE = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
_GROUPS = "X25519MLKEM768:X25519:P-256:P-384"

PROFILES = {
    "intermediate": Profile(net_tls.Version.TLS1_2, _INTERMEDIATE, _GROUPS),
    "modern": Profile(net_tls.Version.TLS1_3, None, _GROUPS),
    "mitmproxy": Profile(),
}


class Options(Protocol):
    """The part of mitmproxy's options that is read here."""

    def has_changed(self, option: str) -> bool: ...

    ciphers_client: str | None
    http2: bool
    request_client_cert: bool
    tls_ecdh_curve_client: str | None
    tls_version_client_max: str
    tls_version_client_min: str


class TlsContexts:
    """The contexts of one configuration. Use it from the event loop."""

    def __init__(
        self,
        options: Options,
        profile: str,
        size: int,
        dhparams: Callable[[], DHParams | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """``size`` is how many certificates are held in memory; there are never more contexts than certificates.

        ``clock`` (monotonic seconds) and ``draw`` (random in [0, 1)) are arguments for tests.
        """
        self._options = options
        self._profile = PROFILES[profile]
        self._dhparams = dhparams
        self._draw = draw
        self._contexts: TLRUCache[_Key, SSL.Context] = TLRUCache(min(size, _MOST_CONTEXTS), self._expires_at, clock)

    def clear(self) -> None:
        """Build all contexts again: an option of ``TLS_OPTIONS`` changed. Connections keep their context."""
        self._contexts.clear()

    def get(self, certificate: Certificate, ciphers: tuple[str, ...] = ()) -> SSL.Context:
        """Return the context for ``certificate``; ``ciphers`` are what another addon set for this connection."""
        key = (certificate.fingerprint, ciphers)
        try:
            return self._contexts[key]
        except KeyError:
            context = self._contexts[key] = self._build(certificate, ciphers)
            return context

    def _expires_at(self, key: _Key, context: SSL.Context, now: float) -> float:
        return now + _LIFETIME + self._draw() * _LIFETIME_SPREAD

    def _build(self, certificate: Certificate, ciphers: tuple[str, ...]) -> SSL.Context:
        options = self._options
        minimum = self._minimum()
        # Not through the helper's own cache, which would share the context among certificates.
        context: SSL.Context = net_tls.create_client_proxy_context.__wrapped__(
            method=net_tls.Method.TLS_SERVER_METHOD,
            min_version=minimum,
            max_version=net_tls.Version[options.tls_version_client_max],
            cipher_list=ciphers or self._ciphers(minimum),
            ecdh_curve=net_tls.get_curve(options.tls_ecdh_curve_client),
            chain_file=None,
            alpn_select_callback=tlsconfig.alpn_select_callback,
            request_client_cert=options.request_client_cert,
            extra_chain_certs=(),
            dhparams=self._dhparams(),
        )
        context.use_certificate(certificate.leaf)
        context.use_privatekey(certificate.key)
        for issuer in certificate.chain:
            context.add_extra_chain_cert(issuer)
        if self._profile.groups is not None and options.tls_ecdh_curve_client is None:
            _offer_groups(context, self._profile.groups)
        # Without it each resumption with request_client_cert is a fatal error, in stock mitmproxy too (seen).
        context.set_session_id(b"mitmproxy-acme")
        return context

    def _minimum(self) -> net_tls.Version:
        """Return the lowest version: the profile's, unless the user chose one."""
        chosen = net_tls.Version[self._options.tls_version_client_min]
        if self._profile.minimum is None or self._options.has_changed("tls_version_client_min"):
            return chosen
        highest = net_tls.Version[self._options.tls_version_client_max]
        if self._options.has_changed("tls_version_client_max") and highest.value < self._profile.minimum.value:
            return chosen
        return self._profile.minimum

    def _ciphers(self, minimum: net_tls.Version) -> tuple[str, ...]:
        if self._options.ciphers_client:
            return tuple(self._options.ciphers_client.split(":"))
        if self._profile.ciphers is not None and minimum not in net_tls.INSECURE_TLS_MIN_VERSIONS:
            return self._profile.ciphers
        return tuple(tlsconfig._default_ciphers(minimum))


def _offer_groups(context: SSL.Context, groups: str) -> None:
    # pyOpenSSL can set only one curve, which would lose the hybrid key exchange; mitmproxy uses _lib as well.
    accepted = SSL._lib.SSL_CTX_set1_curves_list(context._context, groups.encode())
    SSL._openssl_assert(accepted == 1)
