"""Which certificate a client gets, and what happens if there is none.

This module knows mitmproxy's TLS events; it must not know how a certificate is obtained.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from mitmproxy import connection, tls
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, modes, quic
from mitmproxy.proxy.mode_specs import RegularMode, ReverseMode
from OpenSSL import SSL

from acme_storage import StorageError

from ...core.certificate import Certificate
from ...core.errors import AcmeError, NameNotAllowed
from ...core.instrumentation import Instrumentation
from ...core.names import ServerName, parse_address, parse_server_name
from ...lifecycle.manager import Manager
from ..challenge_lookup import ChallengeLookup
from . import rejection, tls_alpn
from .client_hello import ClientCapabilities
from .contexts import Options, TlsContexts
from .hello_limits import ClientHelloLimit, is_quic
from .quic_retry import QuicRetry
from .rejection import Alert, HandshakeRejected
from .unknown_names import UnknownNames

logger = logging.getLogger(__name__)

_TLS_ALPN = "tls-alpn-01"


class _AddressNotValidated(Exception):
    """A QUIC client must show first that it receives what is sent to its address."""


class Handshakes:
    """Answers ``tls_start_client`` and ``quic_start_client`` for one configuration. Use it from the event loop.

    Only in reverse mode are the clients visitors of this site. In the other modes they go to any host of the world
    through the proxy: there only names and addresses that the operator lists are ours, and nothing is ordered.
    """

    def __init__(
        self,
        manager: Manager,
        challenges: ChallengeLookup,
        contexts: TlsContexts,
        options: Options,
        measures: Instrumentation,
        *,
        has_own: Callable[[str], bool] = lambda sni: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``has_own`` says whether the operator gave mitmproxy a certificate for a server name, as it was sent."""
        self._manager = manager
        self._config = manager.config
        self._served = manager.usage.served
        self._challenges = challenges
        self._contexts = contexts
        self._options = options
        self._measures = measures
        self._quic_retry = QuicRetry()
        self._unknown_names = UnknownNames(manager.config, has_own, clock)
        self._has_two_key_types = len(manager.config.key_types) > 1
        self._capabilities: WeakKeyDictionary[connection.Client, ClientCapabilities] = WeakKeyDictionary()
        self.is_ending = False  # whether the storage is being closed: only what is in memory is served then

    def connected(self, client: connection.Client) -> None:
        """Limit what a client sends before its ClientHello in reverse mode, and count a QUIC client until ``done``."""
        is_reverse = isinstance(client.proxy_mode, ReverseMode)
        handler = rejection.connection_handler(client) if is_reverse else None
        if handler is not None and (client.transport_protocol == "tcp" or is_quic(client)):
            handler.layer = ClientHelloLimit(handler, handler.layer)
        self._quic_retry.connected(client)

    def done(self, client: connection.Client) -> None:
        """A client has finished its handshake, or has disconnected."""
        self._quic_retry.done(client)

    def read_hello(self, hello: tls.ClientHelloData) -> None:
        """Remember what decides about the certificate: the client's capabilities, a Retry token, an invalid name."""
        client = hello.context.client
        if client.sni is None:  # it sent none, or one that mitmproxy cannot read
            self._unknown_names.remember_invalid(hello)
        if client.transport_protocol == "udp":
            self._quic_retry.read_token(hello.context)
        if self._has_two_key_types:
            sent, highest = hello.client_hello, net_tls.Version[self._options.tls_version_client_max]
            tls13 = highest in (net_tls.Version.UNBOUNDED, net_tls.Version.TLS1_3)
            self._capabilities[client] = ClientCapabilities.read(sent.cipher_suites, sent.extensions, tls13=tls13)

    async def start_tls(self, start: tls.TlsData) -> None:
        """Give the connection our certificate, reject it, or leave it to mitmproxy as it came."""
        if start.ssl_conn is not None or start.is_dtls:
            return
        client = start.context.client
        try:
            if list(client.alpn_offers) == tls_alpn.VALIDATOR_OFFERS:
                start.ssl_conn = await self._challenge_connection(client)
            elif (certificate := await self._certificate(client)) is not None:
                self._served[certificate.id] = certificate
                start.ssl_conn = self._connection(start.context, certificate)
        except HandshakeRejected as rejected:
            rejection.reject_tls(start, rejected.alert)

    async def start_quic(self, start: quic.QuicTlsData) -> None:
        """Do the same for HTTP/3; read and order nothing for a client whose address may be forged."""
        if start.settings is not None:
            return
        is_validated = self._quic_retry.is_validated(start.context)
        try:
            certificate = await self._certificate(start.context.client, is_validated=is_validated)
        except _AddressNotValidated:
            self._quic_retry.retry(start)
            return
        except HandshakeRejected as rejected:
            rejection.reject_quic(start, rejected.alert)
            return
        if certificate is not None:
            self._served[certificate.id] = certificate
            start.settings = _quic_settings(start.context, certificate)

    async def _challenge_connection(self, client: connection.Client) -> SSL.Connection | None:
        """Return the connection for a validator of tls-alpn-01; None leaves it to mitmproxy.

        Raises ``HandshakeRejected`` for a name of ours that is not being ordered: asking for a challenge certificate
        never starts an order.
        """
        name = parse_server_name(client.sni)
        is_ours = name is not None and self._config.subject(tls_alpn.validated_identifier(name)) is not None
        value = None
        if name is not None and is_ours and not self.is_ending:
            value = await self._challenges.find(_TLS_ALPN, name)
        elif name is not None:  # storage is not read for names that no option allows
            value = self._challenges.find_local(_TLS_ALPN, name)
        digest = value if value is not None and tls_alpn.is_digest(value) else None
        self._measures.challenge(known=digest is not None)
        if name is not None and digest is not None:
            return tls_alpn.connection(name, digest)
        if is_ours:
            raise HandshakeRejected(Alert.HANDSHAKE_FAILURE)
        self._unknown_names.require_known(client)
        return None

    async def _certificate(self, client: connection.Client, *, is_validated: bool = True) -> Certificate | None:
        """Return the certificate to serve; None leaves the client to mitmproxy. Raises ``HandshakeRejected``.

        Raises ``_AddressNotValidated`` if it is not in memory, and the client's address is not validated.
        """
        name = parse_server_name(client.sni) or self._address_reached(client)
        if name is None:
            self._unknown_names.require_known(client)
            return None
        id = name if not self._has_two_key_types else self._preferred_id(client, name)
        certificate = self._manager.cache.get(id)
        if self._has_two_key_types:
            certificate = self._usable(client, certificate)
        if certificate is not None and (isinstance(client.proxy_mode, ReverseMode) or self._config.is_managed(name)):
            self._measures.handshake("cached")
            return certificate
        if self._config.subject(id) is None:
            self._require_known(client)
            return None
        if not is_validated:
            raise _AddressNotValidated
        return await self._obtain(client, name, id)

    async def _obtain(self, client: connection.Client, name: ServerName, id: ServerName) -> Certificate | None:
        """Return the certificate to serve for a name that is not in memory; None leaves it to mitmproxy.

        Raises ``HandshakeRejected``.
        """
        begun = time.monotonic()
        try:
            certificate = self._usable(client, await self._wait_for_certificate(client, id))
        except NameNotAllowed:
            self._require_known(client)
            return None
        self._measures.held(time.monotonic() - begun)
        if certificate is not None:
            self._measures.handshake("obtained")
            return certificate
        if (other := self._of_another_key_type(client, name)) is not None:
            self._measures.handshake("cached")
            return other
        if self._config.fallback == "reject" or not self._unknown_names.may_fall_back(client):
            self._measures.handshake("refused")
            raise HandshakeRejected(Alert.HANDSHAKE_FAILURE)
        self._measures.handshake("fallback")
        return None

    async def _wait_for_certificate(self, client: connection.Client, id: ServerName) -> Certificate | None:
        """Return the certificate of a name of ours, or None if it does not come within ``acme_handshake_wait``.

        Raises ``NameNotAllowed``.
        """
        if self.is_ending:
            return None
        on_demand = isinstance(client.proxy_mode, ReverseMode)
        address = client.peername[0] if client.peername else None
        try:
            async with asyncio.timeout(self._config.handshake_wait):
                return await self._manager.certificate_for(id, on_demand=on_demand, client=address)
        except NameNotAllowed:
            raise
        except TimeoutError:
            logger.debug("%s: the handshake goes on without the certificate, which is still being obtained", id)
        except (AcmeError, StorageError) as error:
            logger.debug("%s: the handshake goes on without a certificate: %s", id, error)
        return None

    def _require_known(self, client: connection.Client) -> None:
        """Return if mitmproxy may serve a name that no option allows; else raise ``HandshakeRejected``."""
        self._measures.handshake("not_ours")
        self._unknown_names.require_known(client)

    def _address_reached(self, client: connection.Client) -> ServerName | None:
        """Return the address that a client without a server name means (RFC 8738), if it may have a certificate.

        Only in reverse mode is that the address that the client reached. An address in the SNI (against RFC 6066
        section 3) does not count: the client may write any.
        """
        if (client.sni and parse_address(client.sni) is None) or self._unknown_names.is_invalid(client):
            return None
        if not isinstance(client.proxy_mode, ReverseMode) or not client.sockname:
            return None
        address = parse_address(client.sockname[0])
        return self._config.address_for(address) if address is not None else None

    # With two types of keys

    def _capabilities_of(self, client: connection.Client) -> ClientCapabilities:
        return self._capabilities.get(client) or ClientCapabilities()

    def _preferred_id(self, client: connection.Client, name: ServerName) -> ServerName:
        """Return the id under which the certificate is cached whose key type is the client's first."""
        key_type = self._capabilities_of(client).choose(self._config.key_types)[0]
        return self._config.id_for(name, key_type)

    def _usable(self, client: connection.Client, certificate: Certificate | None) -> Certificate | None:
        """Return the certificate if the client can use its key, which may be of another type than was asked for.

        Such a certificate was obtained before the options changed.
        """
        if certificate is None or not self._has_two_key_types:
            return certificate
        return certificate if self._capabilities_of(client).takes(certificate.key_type) else None

    def _of_another_key_type(self, client: connection.Client, name: ServerName) -> Certificate | None:
        """Return a cached certificate of any key type that the client can use: better than none."""
        if not self._has_two_key_types:
            return None
        ids = (self._config.id_for(name, key_type) for key_type in self._config.key_types)
        certificates = (self._usable(client, self._manager.cache.get(id)) for id in ids)
        return next((certificate for certificate in certificates if certificate is not None), None)

    def _connection(self, context: Context, certificate: Certificate) -> SSL.Connection:
        client = context.client
        if not client.cipher_list and self._options.ciphers_client:
            client.cipher_list = self._options.ciphers_client.split(":")
        conn = SSL.Connection(self._contexts.get(certificate, tuple(client.cipher_list or ())))
        is_web_proxy = isinstance(client.proxy_mode, RegularMode) and _is_secure_web_proxy(context)
        conn.set_app_data(
            tlsconfig.AppData(
                client_alpn=b"http/1.1" if is_web_proxy else client.alpn,
                server_alpn=context.server.alpn,
                http2=self._options.http2,
            )
        )
        conn.set_accept_state()
        return conn


def _quic_settings(context: Context, certificate: Certificate) -> quic.QuicTlsSettings:
    client = context.client
    chosen = [alpn for alpn in (client.alpn, context.server.alpn) if alpn]
    return quic.QuicTlsSettings(
        certificate=certificate.leaf,
        certificate_chain=list(certificate.chain),
        certificate_private_key=certificate.key,
        alpn_protocols=[alpn.decode("ascii") for alpn in chosen or client.alpn_offers],
    )


def _is_secure_web_proxy(context: Context) -> bool:
    """Say whether the client speaks TLS to the proxy itself: mitmproxy does not support CONNECT over HTTP/2."""
    # mitmproxy's own test, for two layers in all, is no longer true since it adds the HTTP layer first (seen).
    if not context.layers or not isinstance(context.layers[0], modes.HttpProxy):
        return False
    tls_layers = [layer for layer in context.layers if isinstance(layer, ClientTLSLayer)]
    return bool(tls_layers) and tls_layers == context.layers[1:2]
