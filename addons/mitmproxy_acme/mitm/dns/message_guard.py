"""A guard before mitmproxy's own reader of DNS messages, in the ``reverse:dns`` mode.

This module knows mitmproxy's layers; ``dns_query`` says what is a question. mitmproxy's reader follows compression
pointers, takes messages of 64 KB, and ends with a traceback on names that it cannot write again (seen).
"""

import struct

import dns.rcode
from mitmproxy import dns as mitm_dns
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from . import wire
from .wire import Query

# Questions of one client that wait for the upstream; the next are dropped.
_UNANSWERED = 100
# After so many seconds without a question a client is let go, unless it waits for the upstream: resolvers use another
# port for each question over UDP, and a connection is not for a stranger to keep (RFC 7766 section 6.2.3).
_QUIET_UDP, _QUIET_TCP = 1.0, 10.0


class DnsGuard(layer.Layer):
    """Passes questions of one client on to the layer that was made for it, and refuses everything else."""

    def __init__(self, context: Context, behind: layer.Layer) -> None:
        super().__init__(context)
        context.layers.remove(self)  # mitmproxy tells by the list which kind of proxy this is
        self._behind = behind
        self._udp = context.client.transport_protocol == "udp"
        self._received = bytearray()
        self._unanswered = 0
        self._heard = False  # since the last look at whether the client is done
        self._look: commands.RequestWakeup | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Wakeup) and event.command is self._look:
            yield from self._let_go_of_the_silent()
        elif isinstance(event, events.DataReceived) and event.connection is self.context.client:
            yield from self._receive(event.data)
        else:
            if isinstance(event, events.Start):
                yield from self._look_later()
            yield from self._pass(event)

    def _look_later(self) -> layer.CommandGenerator[None]:
        self._heard = False
        self._look = commands.RequestWakeup(_QUIET_UDP if self._udp else _QUIET_TCP)
        yield self._look

    def _let_go_of_the_silent(self) -> layer.CommandGenerator[None]:
        if self._heard or (self._udp and self._unanswered):
            yield from self._look_later()
        else:
            yield commands.CloseConnection(self.context.client)

    def _receive(self, data: bytes) -> layer.CommandGenerator[None]:
        if self._udp:
            yield from self._check(data)
            return
        self._received += data
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2])
            if not wire.SHORTEST <= end - 2 <= wire.LONGEST:
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
        elif query is not None and self._unanswered < _UNANSWERED:
            self._unanswered += 1
            yield from self._pass(events.DataReceived(self.context.client, self._framed(message)))

    def _framed(self, message: bytes) -> bytes:
        return message if self._udp else len(message).to_bytes(2) + message

    def _pass(self, event: events.Event) -> layer.CommandGenerator[None]:
        for command in self._behind.handle_event(event):
            if isinstance(command, commands.SendData) and command.connection is self.context.client:
                self._unanswered = max(0, self._unanswered - 1)
            yield command


def _is_readable(message: bytes) -> bool:
    """Say whether mitmproxy can read a question, and write it again for the upstream."""
    try:
        return bool(mitm_dns.DNSMessage.unpack(message).packed)
    except (struct.error, ValueError, RecursionError):
        return False
