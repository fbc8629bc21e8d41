"""The admin API: Kong's calls with Kong's replies, and what goes beyond them.

This module knows resources and their fields; it must not know how a request is admitted, or a certificate obtained.
"""

import asyncio
import base64
import binascii
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError

from ..errors import BackingOff, IssuanceError, NameNotAllowed, NotFound, WrongNode
from ..names import ServerName, Subject, parse_certificate_name
from ..revocation import REASONS
from . import sanity
from .desk import Desk
from .documents import Document
from .guard import Refused
from .inventory import Row, State
from .live import TooManyWatchers
from .resource import Resource

_SIZE_DEFAULT, _SIZE_MOST = 100, 1_000
_READ_WITHIN = 30.0
_SAY_ALIVE_EVERY = 15.0
_LONGEST_SEARCH = 253
_WITHOUT_REVOCATION = "none"


class Acme(Resource):
    """``/acme``: Kong's own resource."""

    async def post(self) -> None:
        """Create a certificate, waiting for it; or run the sanity test."""
        fields = self.body()
        host, test = fields.get("host"), fields.get("test_http_challenge_flow")
        if not isinstance(host, str) or not host:
            raise Refused(400, "host must be provided and containing a single domain")
        if ":" in host:
            raise Refused(400, "port is not allowed in host")
        name = parse_certificate_name(host)
        if name is None:
            raise Refused(400, "host must be provided and containing a single domain")
        if test in (True, "true", "1"):
            await self._test(name)
        else:
            await self._create(name)

    async def _create(self, name: ServerName) -> None:
        try:
            await self.desk.manager.ensure(self._subject(name))
        except IssuanceError as error:
            until = error.until if isinstance(error, BackingOff) else None
            raise Refused(500, f"failed to update certificate: {error}", until=until) from None
        self.reply(201, {"message": f"certificate for host {name} is created"})

    async def _test(self, name: ServerName) -> None:
        manager = self.desk.manager
        manager.health.require()
        try:
            self._subject(name)
            problem = await manager.threads.operating(sanity.find_problem, manager.store, name)
        except NameNotAllowed:
            problem = "host is not included in acme_domains or acme_certificates"
        if problem is not None:
            raise Refused(400, f"problem found running sanity check for {name}: {problem}")
        self.reply(200, {"message": f"sanity test for host {name} passed"})

    def _subject(self, name: ServerName) -> Subject:
        subject = self.desk.manager.config.subject(name)
        if subject is None:
            raise NameNotAllowed(f"host {name} is not included in acme_domains or acme_certificates")
        return subject

    async def patch(self) -> None:
        """Start renewing whatever is due."""
        if not self.desk.manager.config.orders:
            raise WrongNode("this is a data node, which never talks to a CA; ask a control node")
        await self.desk.renew_all_due()
        self.reply(202, {"message": "Renewal process started successfully"})


class Certificates(Resource):
    """``/acme/certificates``: pages of what is stored, sorted by host."""

    async def get(self) -> None:
        size = self._size()
        search = self.get_query_argument("search", "").strip().lower()
        if len(search) > _LONGEST_SEARCH:
            raise Refused(400, f"search is longer than a name can be ({_LONGEST_SEARCH})")
        states = self._states()
        invalid_only = "invalid_only" in self.request.query_arguments
        after = _read_offset(self.get_query_argument("offset", ""))
        if not await self.desk.inventory.loaded(_READ_WITHIN):
            self.set_header("Retry-After", "5")
            raise Refused(503, f"the storage is still being read: {len(self.desk.inventory)} certificates so far")
        select = self.desk.inventory.select
        rows, more = await self.desk.manager.threads.operating(
            select, search=search, states=states, invalid_only=invalid_only, after=after, size=size
        )
        self.reply(200, {"data": [self.desk.describe(row) for row in rows], **self._next(rows if more else [])})

    def _size(self) -> int:
        text = self.get_query_argument("size", str(_SIZE_DEFAULT))
        if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= _SIZE_MOST and len(text) <= 6):
            raise Refused(400, f"size is a whole number from 1 to {_SIZE_MOST}")
        return int(text)

    def _states(self) -> list[State]:
        try:
            return [State(text) for text in self.get_query_arguments("state")]
        except ValueError:
            raise Refused(400, f"state is one of {', '.join(State)}") from None

    def _next(self, rows: list[Row]) -> Document:
        """Return where the next page is: Kong's ``next`` and ``offset``, null at the end."""
        if not rows:
            return {"next": None, "offset": None}
        offset = base64.urlsafe_b64encode(rows[-1].id.encode()).decode()
        kept = [(n, v) for n in ("size", "search", "state", "invalid_only") for v in self.get_query_arguments(n)]
        return {"next": f"/acme/certificates?{urlencode([*kept, ('offset', offset)])}", "offset": offset}


def _read_offset(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text.encode("ascii")).decode()
    except (ValueError, binascii.Error):
        raise Refused(400, "offset is what the page before gave, as it is") from None


class OneCertificate(Resource):
    """``/acme/certificates/HOST``."""

    async def get(self, host: str) -> None:
        row = await _row(self.desk, host)
        self.reply(200, {"data": self.desk.describe(row)})

    async def delete(self, host: str) -> None:
        """Revoke for a reason, and forget; ``reason=none`` forgets without revoking."""
        reason = self.get_query_argument("reason", "unspecified")
        if reason not in REASONS and reason != _WITHOUT_REVOCATION:
            raise Refused(400, f"reason is one of {', '.join((*REASONS, _WITHOUT_REVOCATION))}")
        row = await _row(self.desk, host)
        if reason == _WITHOUT_REVOCATION:
            await self.desk.manager.delete(row.id)
        else:
            await self.desk.manager.revoke(row.id, reason)
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()


async def _row(desk: Desk, host: str) -> Row:
    name = parse_certificate_name(host)
    row = await desk.inventory.read(desk.id_of(name)) if name else None
    if row is None:
        raise NotFound(f"Certificate for host {host} not found in storage")
    return row


class Renewal(Resource):
    """``/acme/certificates/HOST/renew``."""

    async def post(self, host: str) -> None:
        """Order a new one now, and wait for it."""
        row = await _row(self.desk, host)
        subject = self.desk.manager.config.subject(row.id)
        if subject is None:
            raise NameNotAllowed(f"host {row.id} is not included in acme_domains or acme_certificates any more")
        await self.desk.manager.renew(subject)
        self.reply(200, {"data": self.desk.describe(await _row(self.desk, host))})


class Status(Resource):
    """``/acme/status``: the node and its cluster."""

    async def get(self) -> None:
        self.reply(200, await self.desk.overview.look())


class LiveStatus(Resource):
    """``/acme/events``: the same, whenever it changes (server-sent events)."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        try:
            async with self.desk.live.watch() as news:
                while True:
                    try:
                        text = await asyncio.wait_for(news.get(), _SAY_ALIVE_EVERY)
                        self.write(f"event: status\ndata: {text}\n\n")
                    except TimeoutError:
                        self.write(": alive\n\n")
                    await self.flush()
        except TooManyWatchers:
            raise Refused(503, "too many watch already; close some of the pages") from None
        except StreamClosedError:
            return


class Health(Resource):
    """``/health``: for whoever restarts or routes around a node; nothing else is told."""

    public = True

    def get(self) -> None:
        down = self.desk.manager.health.trouble_now is not None
        self.reply(503 if down else 200, {"status": "storage is down" if down else "ok"})


class Nothing(Resource):
    """Whatever else is asked for."""

    def prepare(self) -> None:
        super().prepare()
        raise Refused(404, "there is no such resource; /openapi.json lists them")


ROUTES: tuple[tuple[str, type[Resource]], ...] = (
    (r"/acme", Acme),
    (r"/acme/certificates", Certificates),
    (r"/acme/certificates/([^/]+)", OneCertificate),
    (r"/acme/certificates/([^/]+)/renew", Renewal),
    (r"/acme/status", Status),
    (r"/acme/events", LiveStatus),
    (r"/health", Health),
)
