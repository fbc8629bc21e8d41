"""What a rejected client is sent: the bytes, as OpenSSL and aioquic read them."""

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicProtocolVersion
from mitmproxy import connection
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events
from mitmproxy.test import taddons
from OpenSSL import SSL

from mitmproxy_acme.mitm.tls import rejection
from mitmproxy_acme.mitm.tls.rejection import Alert


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize(
    ("alert", "reason"),
    [(Alert.UNRECOGNIZED_NAME, "unrecognized name"), (Alert.HANDSHAKE_FAILURE, "handshake failure")],
)
def test_alert_is_what_the_client_reads(version: int, alert: Alert, reason: str) -> None:
    """The record is the first reply to a ClientHello, in any version of TLS."""
    offering = SSL.Context(SSL.TLS_CLIENT_METHOD)
    offering.set_max_proto_version(version)
    client = SSL.Connection(offering)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    client.bio_write(rejection.alert_record(alert))
    with pytest.raises(SSL.Error, match=alert.name.lower().replace("_", " ")):
        client.do_handshake()


@pytest.mark.parametrize("version", [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2])
def test_close_packet_is_what_the_client_reads(version: QuicProtocolVersion) -> None:
    """One small datagram ends the client's connection: CRYPTO_ERROR with the alert (RFC 9001 section 4.8)."""
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, original_version=version))
    client.connect(("127.0.0.1", 1), now=0.0)
    initial = client.datagrams_to_send(now=0.0)[0][0]
    reply = rejection.close_packet(initial, 0x100 + Alert.UNRECOGNIZED_NAME)
    assert len(reply) < 100
    client.receive_datagram(reply, ("127.0.0.1", 1), now=0.1)
    client.handle_timer(now=60.0)
    ends = []
    while (event := client.next_event()) is not None:
        ends += [event.error_code] if isinstance(event, ConnectionTerminated) else []
    assert ends == [0x170]


def test_final_reply_is_sent_once() -> None:
    """The reply, then the end; whatever else arrives is ignored."""
    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), state=ConnectionState.OPEN)
    with taddons.context() as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        layer = rejection.FinalReplyLayer(context.Context(client, tctx.options), b"bye")
    said = list(layer.handle_event(events.DataReceived(client, b"more")))
    assert [type(command) for command in said] == [commands.SendData, commands.CloseConnection]
    assert list(layer.handle_event(events.DataReceived(client, b"more"))) == []
