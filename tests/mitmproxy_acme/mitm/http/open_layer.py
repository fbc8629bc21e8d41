"""mitmproxy's layer for the requests of one client, without a proxy around it."""

from typing import Any

from mitmproxy import connection
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import context, mode_specs
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.test import taddons


def open_layer(mode: str, alpn: bytes | None = None) -> tuple[connection.Client, Any]:
    """Return a client that has connected in ``mode``, and the layer, which is yet to get its Start event."""
    with taddons.context(Proxyserver()) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        client = connection.Client(
            peername=("192.0.2.1", 1),
            sockname=("127.0.0.1", 80),
            proxy_mode=mode_specs.ProxyMode.parse(mode),
            state=ConnectionState.OPEN,
            alpn=alpn,
        )
        held = context.Context(client, tctx.options)
    held.server.address = ("up.test", 80)
    return client, http.HttpLayer(held, HTTPMode.transparent)
