"""Handshakes: which certificate a client gets, and what happens where there is none.

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
from mitmproxy.proxy import context as proxy_context
from mitmproxy.proxy.layers import ClientTLSLayer, modes, quic
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
from .hello_limits import BoundedHello, is_quic
from .quic_retry import QuicRetry
from .rejection import Alert, HandshakeRejected
from .unknown_names import UnknownNames, is_reverse

logger = logging.getLogger(__name__)

_TLS_ALPN = "tls-alpn-01"


class _NotValidated(Exception):
    """A client of QUIC must show first that it receives what is sent to its address."""


class Handshakes:
    """Answers ``tls_start_client`` and ``quic_start_client`` for one configuration. Use it from the event loop."""

    def __init__(
        self,
        manager: Manager,
        proofs: ChallengeLookup,
        contexts: TlsContexts,
        options: Options,
        measures: Instrumentation,
        *,
        has_own: Callable[[str], bool] = lambda sni: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``has_own`` says whether the operator gave mitmproxy a certificate for a server name, as it was sent."""
        self._manager = manager
        self._proofs = proofs
        self._contexts = contexts
        self._options = options
        self._measures = measures
        self._addresses = QuicRetry()
        self._strangers = UnknownNames(manager.config, has_own, clock)
        self._both_kinds = len(manager.config.key_types) > 1
        self._offers: WeakKeyDictionary[connection.Client, ClientCapabilities] = WeakKeyDictionary()

    def connected(self, client: connection.Client) -> None:
        """Bound what a client of reverse mode sends before its ClientHello, and count one of QUIC until ``done``."""
        handler = rejection.handler_of(client) if is_reverse(client) else None
        if handler is not None and (client.transport_protocol == "tcp" or is_quic(client)):
            handler.layer = BoundedHello(handler, handler.layer)
        self._addresses.connected(client)

    def done(self, client: connection.Client) -> None:
        """A client has finished its handshake, or has left."""
        self._addresses.done(client)

    def note(self, hello: tls.ClientHelloData) -> None:
        """Remember what the client can, where that decides which certificate it gets; and whether it sent a token.

        And whether it sent a name that mitmproxy could not read, of which there is nothing in ``sni``.
        """
        if hello.context.client.sni is None:
            self._strangers.note_unnamed(hello)
        if hello.context.client.transport_protocol == "udp":
            self._addresses.read(hello.context)
        if self._both_kinds:
            sent, highest = hello.client_hello, net_tls.Version[self._options.tls_version_client_max]
            tls13 = highest in (net_tls.Version.UNBOUNDED, net_tls.Version.TLS1_3)
            self._offers[hello.context.client] = ClientCapabilities.read(
                sent.cipher_suites, sent.extensions, tls13=tls13
            )

    async def start_tls(self, start: tls.TlsData) -> None:
        """Give the connection our certificate, refuse it, or leave it to mitmproxy as it came."""
        if start.ssl_conn is not None or start.is_dtls:
            return
        client = _client(start)
        try:
            if tls_alpn.asks(client.alpn_offers):
                start.ssl_conn = await self._proof(client)
                return
            certificate = await self._certificate(client)
        except HandshakeRejected as refused:
            rejection.refuse_tls(start, refused.alert)
            return
        if certificate is not None:
            start.ssl_conn = self._connection(start, client, certificate)

    async def start_quic(self, start: quic.QuicTlsData) -> None:
        """Do the same for HTTP/3; nothing is read or ordered for a client whose address may be forged."""
        if start.settings is not None:
            return
        client = _client(start)
        try:
            certificate = await self._certificate(client, validated=self._addresses.is_validated(start.context))
        except _NotValidated:
            self._addresses.retry(start)
            return
        except HandshakeRejected as refused:
            rejection.refuse_quic(start, refused.alert)
            return
        if certificate is not None:
            start.settings = self._quic_settings(start, client, certificate)

    async def _proof(self, client: connection.Client) -> SSL.Connection | None:
        """Return what a validator of tls-alpn-01 is shown; None leaves it to mitmproxy.

        Raises ``HandshakeRejected`` for a name of ours that is not being ordered: asking for a challenge certificate
        never starts an order.
        """
        name = parse_server_name(client.sni)
        ours = name is not None and self._manager.config.subject(_validated(name)) is not None
        found = None
        if name is not None:  # storage is not read for names that no option allows
            found = await self._proofs.find(_TLS_ALPN, name) if ours else self._proofs.here(_TLS_ALPN, name)
        digest = found if found is not None and tls_alpn.is_digest(found) else None
        self._measures.challenge(known=digest is not None)
        if name is not None and digest is not None:
            return tls_alpn.connection(name, digest)
        if ours:
            raise HandshakeRejected(Alert.HANDSHAKE_FAILURE)
        self._strangers.require_known(client)
        return None

    async def _certificate(self, client: connection.Client, *, validated: bool = True) -> Certificate | None:
        """Return what to serve; None leaves the client to mitmproxy. Raises ``HandshakeRejected``.

        Raises ``_NotValidated`` where it is not in memory, and the client's address is not ``validated``.
        """
        name = parse_server_name(client.sni) or self._reached(client)
        if name is None:
            self._strangers.require_known(client)
            return None
        place = self._place(client, name)
        certificate = self._usable(client, self._manager.cache.get(place))
        # Elsewhere clients go to any host of the world through us: only what the operator listed is ours there.
        reverse = is_reverse(client)
        if certificate is not None and (reverse or self._manager.config.lists(name)):
            self._measures.handshake("cached")
            return certificate
        if self._manager.config.subject(place) is None:
            self._not_ours(client)
            return None
        if not validated:
            raise _NotValidated
        return await self._cold(client, name, place)

    def _not_ours(self, client: connection.Client) -> None:
        """Leave a name that no option allows to mitmproxy, or raise ``HandshakeRejected``."""
        self._measures.handshake("not_ours")
        self._strangers.require_known(client)

    async def _cold(self, client: connection.Client, name: ServerName, place: ServerName) -> Certificate | None:
        """Return what to serve for a name that is not in memory; None leaves it to mitmproxy.

        Raises ``HandshakeRejected``.
        """
        begun = time.monotonic()
        try:
            certificate = self._usable(client, await self._obtained(client, place))
        except NameNotAllowed:
            self._not_ours(client)
            return None
        self._measures.held(time.monotonic() - begun)
        if certificate is not None:
            self._measures.handshake("obtained")
            return certificate
        if (other := self._other(client, name)) is not None:
            self._measures.handshake("cached")
            return other
        if self._manager.config.fallback == "reject" or not self._strangers.may_fall_back(client):
            self._measures.handshake("refused")
            raise HandshakeRejected(Alert.HANDSHAKE_FAILURE)
        self._measures.handshake("fallback")
        return None

    def _reached(self, client: connection.Client) -> ServerName | None:
        """Return the address that a client without a name (RFC 8738) means, if it may have a certificate.

        Elsewhere than in reverse mode that is not the one that it reached. What SNI has in the place of a name, be
        it an address (against RFC 6066 section 3), is the client's word, and no more.
        """
        if (client.sni and parse_address(client.sni) is None) or self._strangers.is_unreadable(client):
            return None
        if not is_reverse(client):
            return None
        address = parse_address(client.sockname[0]) if client.sockname else None
        return self._manager.config.address_for(address) if address is not None else None

    def _place(self, client: connection.Client, name: ServerName) -> ServerName:
        """Return what to look the certificate up by: of the kinds that the client can use, the preferred one."""
        if not self._both_kinds:
            return name
        config = self._manager.config
        return config.id_for(name, self._offer_of(client).choose(config.key_types)[0])

    def _usable(self, client: connection.Client, certificate: Certificate | None) -> Certificate | None:
        """Return the certificate if the client can use its key: one from before the options changed may be another."""
        if certificate is None or not self._both_kinds or self._offer_of(client).takes(certificate.key_type):
            return certificate
        return None

    def _other(self, client: connection.Client, name: ServerName) -> Certificate | None:
        """Return what is in memory with a key of any kind that the client can use: better than none."""
        config, cache = self._manager.config, self._manager.cache
        places = (config.id_for(name, key_type) for key_type in config.key_types) if self._both_kinds else ()
        return next((held for place in places if (held := self._usable(client, cache.get(place))) is not None), None)

    def _offer_of(self, client: connection.Client) -> ClientCapabilities:
        return self._offers.get(client) or ClientCapabilities()

    async def _obtained(self, client: connection.Client, name: ServerName) -> Certificate | None:
        """Return the certificate of a name of ours, waiting for it as long as the options say; None without one."""
        try:
            async with asyncio.timeout(self._manager.config.handshake_wait):
                on_demand, address = is_reverse(client), client.peername[0] if client.peername else None
                return await self._manager.certificate_for(name, on_demand=on_demand, client=address)
        except NameNotAllowed:
            raise
        except TimeoutError:
            logger.debug("%s: the handshake goes on without the certificate, which is still being obtained", name)
        except (AcmeError, StorageError) as error:
            logger.debug("%s: the handshake goes on without a certificate: %s", name, error)
        return None

    def _connection(self, start: tls.TlsData, client: connection.Client, certificate: Certificate) -> SSL.Connection:
        if not client.cipher_list and self._options.ciphers_client:
            client.cipher_list = self._options.ciphers_client.split(":")
        conn = SSL.Connection(self._contexts.get(certificate, tuple(client.cipher_list or ())))
        conn.set_app_data(
            tlsconfig.AppData(
                client_alpn=b"http/1.1" if _is_secure_web_proxy(start.context) else client.alpn,
                server_alpn=start.context.server.alpn,
                http2=self._options.http2,
            )
        )
        conn.set_accept_state()
        return conn

    def _quic_settings(
        self, start: quic.QuicTlsData, client: connection.Client, certificate: Certificate
    ) -> quic.QuicTlsSettings:
        chosen = [alpn for alpn in (client.alpn, start.context.server.alpn) if alpn]
        return quic.QuicTlsSettings(
            certificate=certificate.leaf,
            certificate_chain=list(certificate.chain),
            certificate_private_key=certificate.key,
            alpn_protocols=[alpn.decode("ascii") for alpn in chosen or client.alpn_offers],
        )


def _validated(name: ServerName) -> ServerName:
    """Return what a validator looks at who sends ``name``: the address, where it is the reverse name of one."""
    address = tls_alpn.address_of(name)
    return ServerName(str(address)) if address is not None else name


def _client(start: tls.TlsData) -> connection.Client:
    assert isinstance(start.conn, connection.Client)  # noqa: S101  # narrows: these hooks speak of clients only
    return start.conn


def _is_secure_web_proxy(context: proxy_context.Context) -> bool:
    """Say whether the client speaks TLS to the proxy itself: CONNECT over HTTP/2 is not supported by mitmproxy."""
    # mitmproxy's own test, that there are two layers, has not held since it adds the HTTP layer first (seen).
    first, second = context.layers[:1], context.layers[1:2]
    secure = [layer for layer in context.layers if isinstance(layer, ClientTLSLayer)]
    return any(isinstance(layer, modes.HttpProxy) for layer in first) and bool(secure) and secure == second
