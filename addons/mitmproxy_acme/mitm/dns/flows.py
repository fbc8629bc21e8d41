"""DNS flows: how the questions for challenges show in mitmproxy, though it did not receive them.

This module knows mitmproxy's flows and hooks; it must not know how a question was answered. A stranger may ask for as
much as he likes, so only so many are listed, and what nobody waits for does not take the place of what a CA asks for.
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

from ..token_bucket import TokenBucket
from .nameserver import Answer

# So many at once, and so many a second.
_KNOWN = 200, 20.0
_UNKNOWN = 20, 1.0

type Tell = Callable[[commands.StartHook], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sender:
    """A client: its address and ours (host, port, …), ``udp`` or ``tcp``, and the mode of the port."""

    address: Any
    sockname: Any
    transport: Any
    mode: ProxyMode


class DnsFlows:
    """Lists what was asked. Use it from the event loop."""

    def __init__(self, tell: Tell) -> None:
        """``tell`` has mitmproxy's addons handle a hook."""
        self._tell = tell
        self._known, self._unknown = TokenBucket(*_KNOWN, time.monotonic), TokenBucket(*_UNKNOWN, time.monotonic)

    def show(self, message: bytes, answer: Answer, asker: Sender) -> None:
        """List a question for a zone of ours, and its answer."""
        if answer.known is None or not (self._known if answer.known else self._unknown).take():
            return
        try:
            flow = _flow(message, answer, asker)
        except (struct.error, ValueError, RecursionError):  # a name that mitmproxy cannot read
            return
        asyncio_utils.create_task(self._list(flow), name="acme dns flow", keep_ref=True)

    async def _list(self, flow: mitm_dns.DNSFlow) -> None:
        await self._tell(layers_dns.DnsRequestHook(flow))
        await self._tell(layers_dns.DnsResponseHook(flow))


def _flow(message: bytes, answer: Answer, asker: Sender) -> mitm_dns.DNSFlow:
    """Raises ``struct.error`` or ``ValueError`` where mitmproxy cannot read it."""
    now = time.time()
    client = connection.Client(
        peername=asker.address,
        sockname=asker.sockname,
        transport_protocol=asker.transport,
        proxy_mode=asker.mode,
        state=connection.ConnectionState.OPEN,
        timestamp_start=now,
    )
    flow = mitm_dns.DNSFlow(client, connection.Server(address=None), live=False)
    flow.request = mitm_dns.DNSMessage.unpack(message, now)
    flow.response = mitm_dns.DNSMessage.unpack(answer.reply, now)
    return flow
