"""Rejects a handshake with an alert that the client receives, and closes the connection.

This module knows what ends a handshake in TLS and in QUIC; it must not know which client to reject, or why.

mitmproxy has no way of its own for this: without a connection it logs an ERROR and leaves the client hanging, and when
OpenSSL fails it closes without sending the alert (seen). So the rejected connection gets a layer that sends the alert
as raw bytes and closes. It costs no certificate, no signature and no log line.
"""

import os
from enum import IntEnum
from functools import cache

from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from mitmproxy import connection, ctx, tls
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import quic
from mitmproxy.proxy.server import ConnectionHandler
from OpenSSL import SSL

_CLOSE_SIZE = 1_200  # the most that the packet may take; it takes about 60 bytes
_CID_SIZE = 8


class Alert(IntEnum):
    """The descriptions of TLS alerts that are sent (RFC 8446 section 6)."""

    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    UNRECOGNIZED_NAME = 112


class HandshakeRejected(Exception):
    """The client gets no certificate, neither ours nor mitmproxy's; ``alert`` is what it is told."""

    def __init__(self, alert: Alert) -> None:
        super().__init__(alert.name)
        self.alert = alert


def reject_tls(start: tls.TlsData, alert: Alert) -> None:
    """End a handshake over TCP with a fatal alert."""
    # So that neither mitmproxy nor another addon sets one. It has no certificate: its handshake would fail.
    start.ssl_conn = SSL.Connection(_no_certificate())
    start.ssl_conn.set_accept_state()
    reply_and_close(start.context, alert_record(alert))


def reject_quic(start: quic.QuicTlsData, alert: Alert) -> None:
    """End a QUIC handshake with the same alert as CRYPTO_ERROR (RFC 9001 section 4.8)."""
    start.settings = quic.QuicTlsSettings(cipher_suites=[])
    if hello := first_datagram(start.context):
        reply_and_close(start.context, close_packet(hello, QuicErrorCode.CRYPTO_ERROR + alert))


def reply_and_close(context: Context, reply: bytes) -> None:
    """Send ``reply`` to the client as soon as the running hook returns, then close; ignore whatever still arrives."""
    if (handler := connection_handler(context.client)) is not None:
        handler.layer = FinalReplyLayer(context, reply)


def connection_handler(client: connection.Client) -> ConnectionHandler | None:
    """Return mitmproxy's handler of a client; None if it is not connected."""
    server = ctx.master.addons.get("proxyserver")  # type: ignore[no-untyped-call]
    return server.connections.get(client.id) if server is not None else None


def alert_record(alert: Alert) -> bytes:
    """Return a TLS record with a fatal alert, unencrypted (RFC 8446 sections 5.1 and 6)."""
    return bytes((21, 3, 3, 0, 2, 2, alert))


def close_packet(initial: bytes, error: int) -> bytes:
    """Return the datagram that answers a client's first Initial with CONNECTION_CLOSE (RFC 9000 section 10.2.3)."""
    header = pull_quic_header(Buffer(data=initial))
    assert header.version is not None  # noqa: S101  # narrows: an Initial has one
    keys = CryptoPair()
    keys.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=os.urandom(_CID_SIZE),
        peer_cid=header.source_cid,
        version=header.version,
        is_client=False,
        max_datagram_size=_CLOSE_SIZE,
    )
    builder.start_packet(QuicPacketType.INITIAL, keys)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE)
    for field in (error, QuicFrameType.CRYPTO, 0):  # the frame that caused it, and the length of the reason
        frame.push_uint_var(field)
    return builder.flush()[0][0]


def quic_layer(context: Context) -> quic.ClientQuicLayer | None:
    """Return mitmproxy's layer that does the handshake of a QUIC client; None for another client."""
    return next((layer for layer in reversed(context.layers) if isinstance(layer, quic.ClientQuicLayer)), None)


def first_datagram(context: Context) -> bytes:
    """Return the client's first Initial, which mitmproxy keeps until the hook returns; empty without one."""
    current = quic_layer(context)
    return current.handshake_datagram_buf[0] if current is not None and current.handshake_datagram_buf else b""


class FinalReplyLayer(layer.Layer):
    """Sends a reply to the client and closes the connection, in the place of the layers that would go on with it."""

    def __init__(self, context: Context, reply: bytes) -> None:
        super().__init__(context)
        self._reply = reply

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        reply, self._reply = self._reply, b""
        client: connection.Client = self.context.client
        if reply:
            yield commands.SendData(client, reply)
            yield commands.CloseConnection(client)


@cache
def _no_certificate() -> SSL.Context:
    return SSL.Context(SSL.TLS_SERVER_METHOD)
