"""Validates the addresses of QUIC clients by Retry (RFC 9000 section 8.1.2), and bounds those that are not validated.

This module knows QUIC's first packets and mitmproxy's layers; it must not know names or certificates. The source of a
first datagram may be forged: before the client has shown that it receives what is sent there, nothing may be ordered or
read for it, and no more than a small state may be kept. A Retry keeps none: all that is needed is in its token.
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
from .hello_limits import BoundedHello, is_quic

# Clients that have not finished a handshake: from the first number on each is asked to validate its address, and beyond
# the second the oldest is closed, which takes nothing from one that was sent a Retry. One holds some 30 KiB for 20 s.
_CROWD, _MOST = 64, 512
_TOKEN_LIFE = 10  # seconds: a client answers a Retry at once
_CID_SIZE = 8
_LEAST_SIZE = 1_200  # RFC 9000 section 14.1
_VERSIONS = frozenset(QuicConfiguration(is_client=False).supported_versions)


@dataclass(frozen=True, slots=True)
class Token:
    """What a Retry token says: who was sent it, and the connection IDs that a client checks (RFC 9000 section 7.3)."""

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
        """Return how many have not finished a handshake."""
        return len(self._open)

    def connected(self, client: connection.Client) -> None:
        """Count a client; in a crowd have it validated before mitmproxy reads its ClientHello, and close the oldest."""
        if not is_quic(client):
            return
        handler = rejection.handler_of(client)
        if handler is not None and len(self._open) >= _CROWD:
            handler.layer = _Gate(handler.layer.context, handler, self._retry_of)
        self._open[client.id] = client
        if len(self._open) > _MOST:
            _, oldest = self._open.popitem(last=False)
            if (handler := rejection.handler_of(oldest)) is not None and oldest in handler.transports:
                handler.close_connection(oldest)

    def done(self, client: connection.Client) -> None:
        """Count a client no more: it has finished its handshake, or it has left."""
        self._open.pop(client.id, None)

    def read(self, context: Context) -> None:
        """Look at the token of a ClientHello that has just arrived, before mitmproxy makes the connection."""
        held = rejection.quic_layer(context)
        if held is None or not held.handshake_datagram_buf:
            return
        header = pull_quic_header(Buffer(data=held.handshake_datagram_buf[0]))
        token = self._open_token(header.token)
        if token is not None and token.peer == _peer(context.client) and token.source == header.destination_cid:
            self._validated.add(context.client)
            self.done(context.client)  # its address is not forged: it is bounded as one over TCP is
            _resume(held, token)

    def is_validated(self, context: Context) -> bool:
        """Say whether the client receives what is sent to its address; yes where no Retry can be sent."""
        return context.client in self._validated or not rejection.first_datagram(context)

    def retry(self, start: quic.QuicTlsData) -> None:
        """Answer a client with a Retry, and begin anew with the ClientHello that it sends again.

        One that has answered a Retry already, with a token that is not valid, is closed: it would ignore another.
        """
        start.settings = quic.QuicTlsSettings(cipher_suites=[])
        initial = rejection.first_datagram(start.context)
        header = pull_quic_header(Buffer(data=initial))
        if header.token:
            rejection.say_last(start.context, rejection.close_packet(initial, QuicErrorCode.INVALID_TOKEN))
            return
        if (handler := rejection.handler_of(start.context.client)) is not None:
            handler.layer = _Gate(start.context, handler, self._retry_of, self._retry_of(start.context.client, header))

    def _retry_of(self, client: connection.Client, header: QuicHeader) -> bytes:
        """Return the Retry that answers an Initial."""
        source = os.urandom(_CID_SIZE)
        said = (_peer(client), header.destination_cid.hex(), source.hex())
        token = self._key.encrypt(json.dumps(said).encode())
        assert header.version is not None  # noqa: S101  # narrows: an Initial has one
        return encode_quic_retry(header.version, source, header.source_cid, header.destination_cid, token)

    def _open_token(self, sealed: bytes) -> Token | None:
        try:
            peer, original, source = json.loads(self._key.decrypt(sealed, ttl=_TOKEN_LIFE)) if sealed else ("", "", "")
        except InvalidToken:
            return None
        return Token(peer, bytes.fromhex(original), bytes.fromhex(source)) if peer else None


class _Gate(layer.Layer):
    """Answers first datagrams with a Retry, and gives the one that has a token to new layers of mitmproxy.

    Whatever else arrives is dropped. It costs a hundredth of what mitmproxy needs to read a ClientHello.
    """

    def __init__(
        self,
        context: Context,
        handler: ConnectionHandler,
        retry: Callable[[connection.Client, QuicHeader], bytes],
        packet: bytes = b"",
    ) -> None:
        """``packet`` is sent at once."""
        self._top = type(context.layers[0])  # of reverse mode
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
            anew = BoundedHello(self._handler, self._top(Context(client, self.context.options)))
            self._handler.layer = anew
            yield from anew.handle_event(events.Start())
            yield from anew.handle_event(event)


def _initial(datagram: bytes) -> QuicHeader | None:
    """Return the header of a client's Initial; None for anything else."""
    try:
        header = pull_quic_header(Buffer(data=datagram))
    except (TypeError, ValueError):
        return None
    known = header.version in _VERSIONS
    return header if known and header.packet_type == QuicPacketType.INITIAL and len(datagram) >= _LEAST_SIZE else None


def _resume(held: quic.ClientQuicLayer, token: Token) -> None:
    """Have mitmproxy's layer tell the client the connection IDs from before the Retry, which the client checks."""
    start_tls = held.start_tls

    def resume(original_destination_connection_id: bytes | None) -> layer.CommandGenerator[None]:
        yield from start_tls(token.original)
        if held.quic is not None:
            held.quic._retry_source_connection_id = token.source

    held.start_tls = resume  # type: ignore[method-assign]  # on this instance


def _peer(client: connection.Client) -> str:
    return f"{client.peername[0]} {client.peername[1]}"
