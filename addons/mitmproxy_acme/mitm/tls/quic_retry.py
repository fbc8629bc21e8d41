"""Validates the addresses of QUIC clients by Retry (RFC 9000 section 8.1.2), and limits those that are not validated.

This module knows QUIC's first packets and mitmproxy's layers; it must not know names or certificates. The source of a
first datagram may be forged. Until the client has shown that it receives what is sent there, nothing is ordered or read
for it, and little state is kept. A Retry needs no state: its token carries everything.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicHeader, QuicPacketType, encode_quic_retry, pull_quic_header
from cryptography.fernet import Fernet, InvalidToken
from mitmproxy import connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import quic
from mitmproxy.proxy.server import ConnectionHandler

from . import rejection
from .hello_limits import ClientHelloLimit, is_quic

# Clients that have not finished a handshake, each of which takes some 30 KiB for 20 s. From the first number on each
# client must validate its address. Beyond the second the oldest is closed; one that was sent a Retry loses nothing.
_RETRY_FROM, _MAX_CLIENTS = 64, 512
_TOKEN_LIFETIME = 10  # seconds: a client answers a Retry at once
_CID_SIZE = 8
_MIN_INITIAL_SIZE = 1_200  # RFC 9000 section 14.1
_VERSIONS = frozenset(QuicConfiguration(is_client=False).supported_versions)


@dataclass(frozen=True, slots=True)
class RetryToken:
    """What a Retry token says: the client's address, and the connection IDs that it checks (RFC 9000 section 7.3)."""

    peer: str
    original: bytes
    source: bytes


class QuicRetry:
    """The clients of one configuration. Use it from the event loop; nothing here waits."""

    def __init__(self) -> None:
        self._key = Fernet(Fernet.generate_key())
        self._open: OrderedDict[str, connection.Client] = OrderedDict()
        self._validated: WeakSet[connection.Client] = WeakSet()

    def __len__(self) -> int:
        """Return how many clients have not finished a handshake."""
        return len(self._open)

    def connected(self, client: connection.Client) -> None:
        """Count a client. Among many, validate it before mitmproxy reads its ClientHello, and close the oldest."""
        if not is_quic(client):
            return
        handler = rejection.connection_handler(client)
        if handler is not None and len(self._open) >= _RETRY_FROM:
            handler.layer = _RetryLayer(handler.layer.context, handler, self._retry_of)
        self._open[client.id] = client
        if len(self._open) > _MAX_CLIENTS:
            _, oldest = self._open.popitem(last=False)
            if (handler := rejection.connection_handler(oldest)) is not None and oldest in handler.transports:
                handler.close_connection(oldest)

    def done(self, client: connection.Client) -> None:
        """Count a client no longer: it has finished its handshake, or has disconnected."""
        self._open.pop(client.id, None)

    def read_token(self, context: Context) -> None:
        """Check the token of a ClientHello that has just arrived, before mitmproxy makes the connection."""
        current = rejection.quic_layer(context)
        if current is None or not current.handshake_datagram_buf:
            return
        header = pull_quic_header(Buffer(data=current.handshake_datagram_buf[0]))
        token = self._decrypt(header.token)
        if token is not None and token.peer == _peer(context.client) and token.source == header.destination_cid:
            self._validated.add(context.client)
            self.done(context.client)  # its address is not forged: it is limited like a client over TCP
            _resume(current, token)

    def is_validated(self, context: Context) -> bool:
        """Say whether the client receives what is sent to its address; yes if no Retry can be sent."""
        return context.client in self._validated or not rejection.first_datagram(context)

    def retry(self, start: quic.QuicTlsData) -> None:
        """Answer a client with a Retry, and start again with the ClientHello that it sends next.

        A client that already answered a Retry, with an invalid token, is closed: it would ignore another.
        """
        start.settings = quic.QuicTlsSettings(cipher_suites=[])
        initial = rejection.first_datagram(start.context)
        header = pull_quic_header(Buffer(data=initial))
        if header.token:
            rejection.reply_and_close(start.context, rejection.close_packet(initial, QuicErrorCode.INVALID_TOKEN))
            return
        if (handler := rejection.connection_handler(start.context.client)) is not None:
            handler.layer = _RetryLayer(
                start.context, handler, self._retry_of, self._retry_of(start.context.client, header)
            )

    def _retry_of(self, client: connection.Client, header: QuicHeader) -> bytes:
        """Return the Retry that answers an Initial."""
        source = os.urandom(_CID_SIZE)
        content = (_peer(client), header.destination_cid.hex(), source.hex())
        token = self._key.encrypt(json.dumps(content).encode())
        assert header.version is not None  # noqa: S101  # narrows: an Initial has one
        return encode_quic_retry(header.version, source, header.source_cid, header.destination_cid, token)

    def _decrypt(self, token: bytes) -> RetryToken | None:
        try:
            peer, original, source = (
                json.loads(self._key.decrypt(token, ttl=_TOKEN_LIFETIME)) if token else ("", "", "")
            )
        except InvalidToken:
            return None
        return RetryToken(peer, bytes.fromhex(original), bytes.fromhex(source)) if peer else None


class _RetryLayer(layer.Layer):
    """Answers Initials with a Retry, and passes the one that has a token to new layers of mitmproxy.

    Everything else is dropped. It costs a hundredth of what mitmproxy needs to read a ClientHello.
    """

    def __init__(
        self,
        context: Context,
        handler: ConnectionHandler,
        retry: Callable[[connection.Client, QuicHeader], bytes],
        packet: bytes = b"",
    ) -> None:
        """``packet`` is sent at once."""
        self._first_layer = type(context.layers[0])  # of reverse mode
        super().__init__(context)
        self._handler, self._retry, self._packet = handler, retry, packet

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client = self.context.client
        if self._packet:
            packet, self._packet = self._packet, b""
            yield commands.SendData(client, packet)
        elif isinstance(event, events.DataReceived) and (header := _initial(event.data)) is not None:
            if not header.token:
                yield commands.SendData(client, self._retry(client, header))
                return
            restarted = ClientHelloLimit(self._handler, self._first_layer(Context(client, self.context.options)))
            self._handler.layer = restarted
            yield from restarted.handle_event(events.Start())
            yield from restarted.handle_event(event)


def _initial(datagram: bytes) -> QuicHeader | None:
    """Return the header of a client's Initial; None for anything else."""
    try:
        header = pull_quic_header(Buffer(data=datagram))
    except (TypeError, ValueError):
        return None
    known = header.version in _VERSIONS
    return (
        header
        if known and header.packet_type == QuicPacketType.INITIAL and len(datagram) >= _MIN_INITIAL_SIZE
        else None
    )


def _resume(current: quic.ClientQuicLayer, token: RetryToken) -> None:
    """Have mitmproxy's layer send the connection IDs from before the Retry, which the client checks."""
    start_tls = current.start_tls

    def resume(original_destination_connection_id: bytes | None) -> layer.CommandGenerator[None]:
        yield from start_tls(token.original)
        if current.quic is not None:
            current.quic._retry_source_connection_id = token.source

    current.start_tls = resume  # type: ignore[method-assign]  # on this instance


def _peer(client: connection.Client) -> str:
    return f"{client.peername[0]} {client.peername[1]}"
