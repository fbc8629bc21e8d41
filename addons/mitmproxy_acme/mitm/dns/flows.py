"""Makes flows of the queries for challenges, which mitmproxy did not receive itself.

This module knows mitmproxy's flows and hooks; it must not know how a query was answered. Strangers may send any number
of queries, so only some are listed, and those for unknown challenges do not use up the share of a CA's.
"""

import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mitmproxy import connection
from mitmproxy import dns as mitm_dns
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import dns as layers_dns
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.utils import asyncio_utils

from ...core.token_bucket import TokenBucket
from .nameserver import Answer

# Flows of known and of unknown challenges: so many at once, and a second after that.
_KNOWN = 200, 20.0
_UNKNOWN = 20, 1.0

type HandleHook = Callable[[commands.StartHook], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DnsClient:
    """A client: its address and ours (host, port, …), ``udp`` or ``tcp``, and the mode of the port."""

    address: Any
    sockname: Any
    transport: Any
    mode: ProxyMode


class DnsFlows:
    """Lists queries and their answers in mitmproxy. Use it from the event loop."""

    def __init__(self, handle_hook: HandleHook) -> None:
        """``handle_hook`` has mitmproxy's addons handle a hook."""
        self._handle_hook = handle_hook
        self._known, self._unknown = TokenBucket(*_KNOWN, time.monotonic), TokenBucket(*_UNKNOWN, time.monotonic)

    def show(self, message: bytes, answer: Answer, client: DnsClient) -> None:
        """List a query for a zone of ours, and its answer."""
        if answer.known is None or not (self._known if answer.known else self._unknown).take():
            return
        try:
            flow = _flow(message, answer, client)
        except (struct.error, ValueError, RecursionError):  # a name that mitmproxy cannot read
            return
        asyncio_utils.create_task(self._list(flow), name="acme dns flow", keep_ref=True)

    async def _list(self, flow: mitm_dns.DNSFlow) -> None:
        await self._handle_hook(layers_dns.DnsRequestHook(flow))
        await self._handle_hook(layers_dns.DnsResponseHook(flow))


def _flow(message: bytes, answer: Answer, client: DnsClient) -> mitm_dns.DNSFlow:
    """Raises ``struct.error``, ``ValueError`` or ``RecursionError`` if mitmproxy cannot read the messages."""
    now = time.time()
    client_conn = connection.Client(
        peername=client.address,
        sockname=client.sockname,
        transport_protocol=client.transport,
        proxy_mode=client.mode,
        state=connection.ConnectionState.OPEN,
        timestamp_start=now,
    )
    flow = mitm_dns.DNSFlow(client_conn, connection.Server(address=None), live=False)
    flow.request = mitm_dns.DNSMessage.unpack(message, now)
    flow.response = mitm_dns.DNSMessage.unpack(answer.reply, now)
    return flow
