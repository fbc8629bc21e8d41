"""The resources of the admin API about the node: status, metrics, health, and the API itself.

This module knows their formats; it must not know where a value is read.
"""

import asyncio
import contextlib
import ipaddress

from tornado.iostream import StreamClosedError

from ..documents import describe_history
from ..problems import TOO_MANY_WATCHERS, HttpError
from ..status import describe_status
from ..status_stream import TooManyWatchers, Watcher
from . import openapi
from .base_handler import BaseHandler

_KEEPALIVE_EVERY = 15.0


class StatusHandler(BaseHandler):
    """``/acme/status``: the node and its cluster."""

    async def get(self) -> None:
        self.reply(200, describe_status(await self.context.state.read()))


class HistoryHandler(BaseHandler):
    """``/acme/history``: what happened to certificates on all nodes."""

    async def get(self) -> None:
        self.reply(200, describe_history(await self.context.history.read()))


class TrafficHandler(BaseHandler):
    """``/acme/traffic``: the handshakes of this node in the last hour."""

    def get(self) -> None:
        self.reply(200, self.context.traffic.document())


class StatusStreamHandler(BaseHandler):
    """``/acme/events``: status, history and traffic, each sent at its changes (server-sent events)."""

    async def get(self) -> None:
        only = self.get_query_argument("only", "")
        if only not in ("", openapi.ONLY_HISTORY):
            raise HttpError(400, f"only is {openapi.ONLY_HISTORY}; leave it out for all documents")
        self._stream = self.context.history_stream if only else self.context.stream
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        with contextlib.suppress(StreamClosedError, TimeoutError):
            await self._follow()

    async def _follow(self) -> None:
        try:
            async with self._stream.watch(_client(self.request.remote_ip)) as watcher:
                while True:
                    self.write(await _event(watcher))
                    await asyncio.wait_for(self.flush(), _KEEPALIVE_EVERY)  # a client that reads nothing is dropped
        except TooManyWatchers:
            raise HttpError.of(TOO_MANY_WATCHERS, "too many clients watch the status; close some pages") from None

    head = BaseHandler._unimplemented_method  # it would never end


def _client(address: str | None) -> str:
    """Return the client to count watchers by; empty for this machine and Unix sockets, whose clients look the same."""
    ip = ipaddress.ip_address(address or "::")
    return "" if ip.is_loopback or ip.is_unspecified else str(ip)


async def _event(watcher: Watcher) -> str:
    try:
        name, document = await asyncio.wait_for(watcher.get(), _KEEPALIVE_EVERY)
    except TimeoutError:
        return ": alive\n\n"
    return f"event: {name}\ndata: {document}\n\n"


class MetricsHandler(BaseHandler):
    """``/metrics``: for Prometheus."""

    always = True

    async def get(self) -> None:
        context, accept = self.context, self.request.headers.get("Accept", "")
        state = await context.state.read()
        exposition = await context.metrics.exposition(state, context.manager.threads, accept=accept)
        self.set_header("Content-Type", exposition.content_type)
        self.finish(exposition.body)


class HealthHandler(BaseHandler):
    """``/health``: for load balancers and supervisors; it reveals nothing else."""

    public = always = True

    def get(self) -> None:
        down = self.context.manager.health.trouble_now is not None
        self.reply(503 if down else 200, {"status": "storage is down" if down else "ok"})


class OpenApiHandler(BaseHandler):
    """``/openapi.json``: this API as an OpenAPI document."""

    public = always = True

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(openapi.text(token=bool(self.context.guard.token)))
