"""The admin API: Kong's calls with Kong's replies, and what goes beyond them.

This module knows resources and their fields; it must not know how a request is admitted, or a certificate obtained.
"""

import asyncio
import contextlib
import ipaddress
from functools import partial
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError

from ..core.errors import (
    BackingOff,
    IssuanceError,
    NameNotAllowed,
    NoControlNode,
    NotFound,
    RecordRefused,
    WrongNode,
)
from ..core.names import ServerName, Subject, name_of, options_for, parse_certificate_name
from ..core.revocation import COMPROMISED, REASONS
from ..diagnostics import http_self_test
from . import openapi
from .auth import HttpError
from .base_handler import BaseHandler
from .certificate_rows import CertificateRow, SortKey, State
from .context import AdminContext
from .documents import Document
from .status_stream import TooManyWatchers

_READ_WITHIN = 30.0
_SAY_ALIVE_EVERY = 15.0
_NO_HOST = "host must be provided and containing a single domain"  # Kong's words
# As a form spells them; JSON has its own.
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class AcmeHandler(BaseHandler):
    """``/acme``: Kong's own resource."""

    async def post(self) -> None:
        """Create a certificate, waiting for it; or run the sanity test."""
        fields = self.body()
        host, test = fields.get("host"), _truth(fields.get("test_http_challenge_flow", False))
        if not isinstance(host, str) or not host:
            raise HttpError(400, _NO_HOST)
        name = parse_certificate_name(host)
        if name is None:
            raise HttpError(400, "port is not allowed in host" if _has_port(host) else _NO_HOST)
        if test:
            await self._test(name)
        else:
            await self._create(name)

    async def _create(self, name: ServerName) -> None:
        manager, subject = self.context.manager, self._subject(name)
        manager.health.require()
        try:
            certificate = await manager.issue(subject)
            if not manager.is_wanted(subject, certificate):  # an old one is served on, while it cannot be had
                raise manager.failures.known(subject) or IssuanceError(f"{subject}: the log has the reason")
        except (IssuanceError, NoControlNode, RecordRefused) as error:
            until = error.until if isinstance(error, BackingOff) else None
            raise HttpError(500, f"failed to update certificate: {error}", until=until) from None
        self.reply(201, {"message": f"certificate for host {name} is created"})

    async def _test(self, name: ServerName) -> None:
        manager = self.context.manager
        manager.health.require()
        try:
            self._subject(name)
            problem = await manager.threads.issuer(http_self_test.find_problem, manager.store, name_of(name))
        except NameNotAllowed:
            problem = f"host is not included in {' or '.join(options_for(name))}"
        if problem is not None:
            raise HttpError(400, f"problem found running sanity check for {name}: {problem}")
        self.reply(200, {"message": f"sanity test for host {name} passed"})

    def _subject(self, name: ServerName) -> Subject:
        subject = self.context.manager.config.subject(name)
        if subject is None:
            raise NameNotAllowed(f"host {name} is not included in {' or '.join(options_for(name))}")
        return subject

    async def patch(self) -> None:
        """Start renewing whatever is due."""
        if not self.context.manager.config.orders:
            raise WrongNode("this is a data node, which never talks to a CA; ask a control node")
        self.context.manager.health.require()  # where nothing is known to be due, nothing else would meet it
        await _loaded(self)
        await self.context.renew_all_due()
        self.reply(202, {"message": "Renewal process started successfully"})


def _has_port(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return port.isdecimal() and parse_certificate_name(name) is not None


def _truth(value: object) -> bool:
    """Read a boolean of JSON or of a form. Raises ``HttpError``: a slip must not order what was to be tested."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _TRUTH:
        return _TRUTH[value]
    raise HttpError(400, "test_http_challenge_flow is true or false")


async def _loaded(resource: BaseHandler) -> None:
    """Wait until all that is stored has been read once. Raises ``HttpError`` where that takes long."""
    inventory = resource.context.inventory
    if not await inventory.loaded(_READ_WITHIN):
        soon = resource.context.manager.now() + _READ_WITHIN / 6
        raise HttpError(503, f"the storage is still being read: {len(inventory)} certificates so far", until=soon)


class CertificatesHandler(BaseHandler):
    """``/acme/certificates``: pages of what is stored, sorted by host or by what expires first."""

    async def get(self) -> None:
        size = self._size()
        search = self.get_query_argument("search", "").strip().lower()
        if len(search) > openapi.LONGEST_SEARCH:
            raise HttpError(400, f"search is longer than a name can be ({openapi.LONGEST_SEARCH})")
        states = self._states()
        invalid_only = "invalid_only" in self.request.query_arguments
        order, after = self._order(), self.get_query_argument("offset", "")
        await _loaded(self)
        select = partial(self.context.inventory.select, search=search, states=states, invalid_only=invalid_only)
        rows, more = await self.context.manager.threads.operating(select, order=order, after=after, size=size)
        self.reply(
            200, {"data": [self.context.describe(row) for row in rows], **self._next(rows if more else [], order)}
        )

    def _size(self) -> int:
        text = self.get_query_argument("size", str(openapi.SIZE_DEFAULT))
        if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 0 < int(text) <= openapi.SIZE_MOST):
            raise HttpError(400, f"size is a whole number from 1 to {openapi.SIZE_MOST}")
        return int(text)

    def _states(self) -> list[State]:
        try:
            return [State(text) for text in self.get_query_arguments("state")]
        except ValueError:
            raise HttpError(400, f"state is one of {', '.join(State)}") from None

    def _order(self) -> SortKey:
        try:
            return SortKey(self.get_query_argument("sort", SortKey.HOST))
        except ValueError:
            raise HttpError(400, f"sort is one of {', '.join(SortKey)}") from None

    def _next(self, rows: list[CertificateRow], order: SortKey) -> Document:
        """Return where the next page is: Kong's ``next`` and ``offset``, null at the end."""
        if not rows:
            return {"next": None, "offset": None}
        offset = rows[-1].place(order)
        names = ("size", "search", "state", "invalid_only", "sort")
        kept = [(name, value) for name in names for value in self.get_query_arguments(name)]
        return {"next": f"/acme/certificates?{urlencode([*kept, ('offset', offset)])}", "offset": offset}


class CertificateHandler(BaseHandler):
    """``/acme/certificates/HOST``."""

    async def get(self, host: str) -> None:
        row = await _row(self.context, host)
        self.reply(200, {"data": self.context.describe(row)})

    async def delete(self, host: str) -> None:
        """Revoke for a reason, and forget; ``reason=none`` only forgets, and for keyCompromise it is replaced first."""
        reason = self.get_query_argument("reason", "unspecified")
        if reason not in REASONS and reason != openapi.WITHOUT_REVOCATION:
            raise HttpError(400, f"reason is one of {', '.join((*REASONS, openapi.WITHOUT_REVOCATION))}")
        row = await _row(self.context, host)
        if reason == openapi.WITHOUT_REVOCATION:
            await self.context.manager.delete(row.id)
            return self._done()
        revoked = await self.context.manager.revoke(row.id, reason)
        if reason == COMPROMISED:  # of which there is more to say than that it is done
            return self.reply(200, {"message": f"certificate for host {row.id} is {revoked}"})
        return self._done()

    def _done(self) -> None:
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()


async def _row(context: AdminContext, host: str) -> CertificateRow:
    context.manager.health.require()
    name = parse_certificate_name(host)
    row = await context.inventory.read(context.manager.config.id_of(name)) if name else None
    if row is None:
        raise NotFound(f"Certificate for host {host} not found in storage")
    return row


class RenewalHandler(BaseHandler):
    """``/acme/certificates/HOST/renew``."""

    async def post(self, host: str) -> None:
        """Order a new one now, and wait for it."""
        self.body()  # none is needed, but what comes must be what it says
        row = await _row(self.context, host)
        subject = self.context.manager.config.subject(row.id)
        if subject is None:
            raise NameNotAllowed(f"host {row.id} is not included in {' or '.join(options_for(row.id))} any more")
        await self.context.manager.renew(subject)
        self.reply(200, {"data": self.context.describe(await _row(self.context, host))})


class StatusHandler(BaseHandler):
    """``/acme/status``: the node and its cluster."""

    async def get(self) -> None:
        self.reply(200, await self.context.status.look())


class StatusStreamHandler(BaseHandler):
    """``/acme/events``: the same, whenever it changes (server-sent events)."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        with contextlib.suppress(StreamClosedError, TimeoutError):
            await self._follow()

    async def _follow(self) -> None:
        try:
            async with self.context.stream.watch(_client(self.request.remote_ip)) as news:
                while True:
                    self.write(await _event(news))
                    await asyncio.wait_for(self.flush(), _SAY_ALIVE_EVERY)  # else its reader has fallen silent
        except TooManyWatchers:
            raise HttpError(503, "too many watch already; close some of the pages") from None

    head = BaseHandler._unimplemented_method  # it would never end


def _client(address: str | None) -> str:
    """Return who is counted by itself; those of this machine, and on a Unix socket, cannot be told from each other."""
    ip = ipaddress.ip_address(address or "::")
    return "" if ip.is_loopback or ip.is_unspecified else str(ip)


async def _event(news: asyncio.Queue[str]) -> str:
    try:
        return f"event: status\ndata: {await asyncio.wait_for(news.get(), _SAY_ALIVE_EVERY)}\n\n"
    except TimeoutError:
        return ": alive\n\n"


class MetricsHandler(BaseHandler):
    """``/metrics``: for Prometheus."""

    always = True

    async def get(self) -> None:
        context, accept = self.context, self.request.headers.get("Accept", "")
        seen = await context.surroundings.look()
        exposition = await context.metrics.exposition(context.manager, context.inventory, seen, accept=accept)
        self.set_header("Content-Type", exposition.content_type)
        self.finish(exposition.body)


class HealthHandler(BaseHandler):
    """``/health``: for whoever restarts or routes around a node; nothing else is told."""

    public = always = True

    def get(self) -> None:
        down = self.context.manager.health.trouble_now is not None
        self.reply(503 if down else 200, {"status": "storage is down" if down else "ok"})


class OpenApiHandler(BaseHandler):
    """``/openapi.json``: this API, for whatever reads such documents."""

    public = always = True

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(openapi.text(token=bool(self.context.guard.token)))


ROUTES: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/acme", AcmeHandler),
    (r"/acme/certificates", CertificatesHandler),
    (r"/acme/certificates/([^/]+)", CertificateHandler),
    (r"/acme/certificates/([^/]+)/renew", RenewalHandler),
    (r"/acme/status", StatusHandler),
    (r"/acme/events", StatusStreamHandler),
    (r"/health", HealthHandler),
    (r"/metrics", MetricsHandler),
    (r"/openapi.json", OpenApiHandler),
)
