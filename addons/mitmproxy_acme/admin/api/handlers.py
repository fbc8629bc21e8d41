"""The resources of the admin API about certificates: Kong's calls with Kong's replies, and more.

This module knows resources and their fields; it must not know how a request is admitted or a certificate obtained.
"""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlencode

from ...core.errors import AcmeError, NotFound
from ...core.host_port import parse_host_port
from ...core.names import ServerName, name_of, parse_certificate_name
from ...core.revocation import COMPROMISED, REASONS
from ...diagnostics import http_self_test
from ..certificate_rows import SortKey, State
from ..certificate_service import CertificateService, not_included
from ..context import AdminContext
from ..problems import CERTIFICATE_NOT_FOUND, SELF_TEST_FAILED, STORAGE_LOADING, HttpError
from . import openapi
from .base_handler import BaseHandler
from .node_handlers import (
    HealthHandler,
    HistoryHandler,
    MetricsHandler,
    OpenApiHandler,
    StatusHandler,
    StatusStreamHandler,
    TrafficHandler,
)

_LOADED_WITHIN = 30.0
_NO_HOST = "host must be provided and containing a single domain"  # Kong's words
# As a form spells them; JSON has its own.
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class AcmeHandler(BaseHandler):
    """``/acme``: Kong's own resource."""

    async def post(self) -> None:
        """Create a certificate and wait for it, or run the sanity test."""
        fields = self.body()
        host, test = fields.get("host"), _boolean(fields.get("test_http_challenge_flow", False))
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
        with _explained(self.context.service, name, "failed to update certificate: "):  # Kong's words
            await self.context.service.issue(name)
        self.reply(201, {"message": f"certificate for host {name} is created"})

    async def _test(self, name: ServerName) -> None:
        manager = self.context.manager
        manager.health.require()
        if manager.config.subject(name) is None:
            problem: str | None = f"host is {not_included(name)}"
        else:
            problem = await manager.threads.issuer(http_self_test.find_problem, manager.store, name_of(name))
        if problem is not None:
            raise HttpError.of(SELF_TEST_FAILED, f"problem found running sanity check for {name}: {problem}")
        self.reply(200, {"message": f"sanity test for host {name} passed"})

    async def patch(self) -> None:
        """Start renewing every certificate that is due."""
        self.context.service.require_orders()
        self.context.manager.health.require()
        await _loaded(self.context)
        await self.context.service.renew_all_due()
        self.reply(202, {"message": "Renewal process started successfully"})


def _has_port(host: str) -> bool:
    try:
        return parse_certificate_name(parse_host_port(host).host) is not None
    except ValueError:
        return False


def _boolean(value: object) -> bool:
    """Read a boolean of JSON or of a form. Raises ``HttpError``: a typing error must not place an order."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise HttpError(400, "test_http_challenge_flow is true or false")


async def _loaded(context: AdminContext) -> None:
    """Wait until every stored certificate has been read once. Raises ``HttpError`` if that takes too long."""
    inventory = context.inventory
    if not await inventory.loaded(_LOADED_WITHIN):
        message = f"the storage is still being read: {len(inventory)} certificates so far"
        raise HttpError.of(STORAGE_LOADING, message, retry_at=context.manager.now() + _LOADED_WITHIN / 6)


@contextlib.contextmanager
def _explained(service: CertificateService, name: ServerName, failed: str = "") -> Iterator[None]:
    """Turn an ``AcmeError`` about ``name`` into the problem document that says why, and when to retry.

    The detail of a failed order begins with ``failed``.
    """
    try:
        yield
    except AcmeError as error:
        failure = service.explain(name, error)
        detail = failure.reason
        if isinstance(error, NotFound):
            detail = _not_found(name)
        elif failure.kind.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            detail = f"{failed}{failure.reason}"
        raise HttpError.of(
            failure.kind, detail, reason=failure.reason, retry_at=failure.retry_at, stop=failure.stop
        ) from None


def _not_found(host: str) -> str:
    return f"Certificate for host {host} not found in storage"  # Kong's words


class CertificatesHandler(BaseHandler):
    """``/acme/certificates``: the stored certificates in pages, sorted by host or by expiry."""

    async def get(self) -> None:
        size = self._size()
        search = self.get_query_argument("search", "").strip().lower()
        if len(search) > openapi.LONGEST_SEARCH:
            raise HttpError(400, f"search is too long; write at most {openapi.LONGEST_SEARCH} characters")
        states, order = self._states(), self._order()
        invalid_only = "invalid_only" in self.request.query_arguments
        after = self.get_query_argument("offset", "")
        await _loaded(self.context)
        page = await self.context.service.page(
            search=search, states=states, invalid_only=invalid_only, order=order, after=after, size=size
        )
        self.reply(200, {"data": page.documents, "next": self._next(page.after), "offset": page.after})

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

    def _next(self, offset: str | None) -> str | None:
        """Return the URL of the next page, as Kong has it; None on the last page."""
        if offset is None:
            return None
        names = ("size", "search", "state", "invalid_only", "sort")
        kept = [(name, value) for name in names for value in self.get_query_arguments(name)]
        return f"/acme/certificates?{urlencode([*kept, ('offset', offset)])}"


class CertificateHandler(BaseHandler):
    """``/acme/certificates/HOST``."""

    async def get(self, host: str) -> None:
        name = _parse_host(host)
        with _explained(self.context.service, name):
            self.reply(200, {"data": await self.context.service.show(name)})

    async def delete(self, host: str) -> None:
        """Revoke the certificate and delete it; ``reason=none`` only deletes it, keyCompromise replaces it first."""
        service, name = self.context.service, _parse_host(host)
        reason = self.get_query_argument("reason", "unspecified")
        if reason not in REASONS and reason != openapi.WITHOUT_REVOCATION:
            raise HttpError(400, f"reason is one of {', '.join((*REASONS, openapi.WITHOUT_REVOCATION))}")
        with _explained(service, name):
            if reason == openapi.WITHOUT_REVOCATION:
                await service.delete(name)
                return self._no_content()
            revoked = await service.revoke(name, reason)
        if reason == COMPROMISED:  # the client must learn whether it was replaced
            id = self.context.manager.config.id_of(name)
            return self.reply(200, {"message": f"certificate for host {id} is {revoked}"})
        return self._no_content()

    def _no_content(self) -> None:
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()


def _parse_host(host: str) -> ServerName:
    """Read the name of a certificate from the path. Raises ``HttpError``: no certificate has any other name."""
    name = parse_certificate_name(host)
    if name is None:
        raise HttpError.of(CERTIFICATE_NOT_FOUND, _not_found(host), reason=f"no certificate is stored for {host}")
    return name


class RenewalHandler(BaseHandler):
    """``/acme/certificates/HOST/renew``."""

    async def post(self, host: str) -> None:
        """Order a new certificate now, and wait for it."""
        self.body()  # none is needed, but it must be what its Content-Type says
        service, name = self.context.service, _parse_host(host)
        with _explained(service, name):
            await service.renew(name)
            self.reply(200, {"data": await service.show(name)})


ROUTES: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/acme", AcmeHandler),
    (r"/acme/certificates", CertificatesHandler),
    (r"/acme/certificates/([^/]+)", CertificateHandler),
    (r"/acme/certificates/([^/]+)/renew", RenewalHandler),
    (r"/acme/status", StatusHandler),
    (r"/acme/history", HistoryHandler),
    (r"/acme/traffic", TrafficHandler),
    (r"/acme/events", StatusStreamHandler),
    (r"/health", HealthHandler),
    (r"/metrics", MetricsHandler),
    (r"/openapi.json", OpenApiHandler),
)
