"""Checks DNS messages before mitmproxy's own parser reads them, in the ``reverse:dns`` mode.

This module knows mitmproxy's layers; ``wire`` knows which message is a query. mitmproxy's parser follows compression
pointers, accepts messages of 64 KB, and fails with a traceback on names that it cannot write again (seen).
"""

import struct

import dns.rcode
from mitmproxy import dns as mitm_dns
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from . import wire
from .wire import Query

# Queries of one client that wait for the upstream; further ones are dropped.
_MAX_UNANSWERED = 100
# A client that sends no query for so many seconds, and does not wait for the upstream, is disconnected: resolvers use
# another port for each query over UDP, and a connection is not for a stranger to keep (RFC 7766 section 6.2.3).
_IDLE_UDP, _IDLE_TCP = 1.0, 10.0


class DnsGuard(layer.Layer):
    """Passes the queries of one client on to the wrapped layer, and refuses everything else."""

    def __init__(self, context: Context, wrapped: layer.Layer) -> None:
        super().__init__(context)
        context.layers.remove(self)  # mitmproxy decides by the layers that it finds there
        self._wrapped = wrapped
        self._udp = context.client.transport_protocol == "udp"
        self._received = bytearray()
        self._unanswered = 0
        self._heard = False  # a query since the last wakeup
        self._wakeup: commands.RequestWakeup | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Wakeup) and event.command is self._wakeup:
            yield from self._close_if_idle()
        elif isinstance(event, events.DataReceived) and event.connection is self.context.client:
            yield from self._receive(event.data)
        else:
            if isinstance(event, events.Start):
                yield from self._request_wakeup()
            yield from self._pass_on(event)

    def _request_wakeup(self) -> layer.CommandGenerator[None]:
        self._heard = False
        self._wakeup = commands.RequestWakeup(_IDLE_UDP if self._udp else _IDLE_TCP)
        yield self._wakeup

    def _close_if_idle(self) -> layer.CommandGenerator[None]:
        if self._heard or (self._udp and self._unanswered):
            yield from self._request_wakeup()
        else:
            yield commands.CloseConnection(self.context.client)

    def _receive(self, data: bytes) -> layer.CommandGenerator[None]:
        if self._udp:
            yield from self._check(data)
            return
        self._received += data
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2])
            if not wire.MIN_SIZE <= end - 2 <= wire.MAX_SIZE:
                self._received.clear()
                yield commands.CloseConnection(self.context.client)
                return
            if len(self._received) < end:
                return
            message = bytes(self._received[2:end])
            del self._received[:end]
            yield from self._check(message)

    def _check(self, message: bytes) -> layer.CommandGenerator[None]:
        self._heard = True
        query = wire.read(message)
        if isinstance(query, Query) and not _is_readable(message):
            query = query.reply(dns.rcode.REFUSED)
        if isinstance(query, bytes):
            yield commands.SendData(self.context.client, self._framed(query))
        elif query is not None and self._unanswered < _MAX_UNANSWERED:
            self._unanswered += 1
            yield from self._pass_on(events.DataReceived(self.context.client, self._framed(message)))

    def _framed(self, message: bytes) -> bytes:
        return message if self._udp else len(message).to_bytes(2) + message

    def _pass_on(self, event: events.Event) -> layer.CommandGenerator[None]:
        for command in self._wrapped.handle_event(event):
            if isinstance(command, commands.SendData) and command.connection is self.context.client:
                self._unanswered = max(0, self._unanswered - 1)
            yield command


def _is_readable(message: bytes) -> bool:
    """Say whether mitmproxy can read a query, and write it again for the upstream."""
    try:
        return bool(mitm_dns.DNSMessage.unpack(message).packed)
    except (struct.error, ValueError, RecursionError):
        return False
