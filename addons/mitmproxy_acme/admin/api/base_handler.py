"""What all handlers of the admin API share: admission, headers and problem documents (RFC 9457).

This module must not know what any resource does.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from types import TracebackType
from typing import Any

from tornado.web import HTTPError, OutputTransform, RequestHandler

from acme_storage import StorageError

from ...core.errors import AcmeError, BackingOff
from ..context import AdminContext
from ..documents import Document
from ..problems import HttpError, Problem, kind_of

logger = logging.getLogger(__name__)

# As strict as the page allows; for JSON it costs nothing.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_READING_METHODS = ("GET", "HEAD")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")  # Kong accepts both
_BAD_REQUEST = 400


class BaseHandler(RequestHandler):
    """One resource. ``HttpError``, ``AcmeError`` and ``StorageError`` from its methods become problem documents."""

    public = False  # reveals nothing, so it needs no token
    always = False  # is answered even while the node is busy with too many requests
    authorized = False
    _task: asyncio.Task[Any] | None = None

    def initialize(self, context: AdminContext) -> None:
        self.context = context

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    async def _execute(self, transforms: list[OutputTransform], *args: bytes, **kwargs: bytes) -> None:
        self._task = asyncio.current_task()
        # Cancelled when the connection or mitmproxy ends; tornado would print a traceback.
        with contextlib.suppress(asyncio.CancelledError):
            await super()._execute(transforms, *args, **kwargs)

    def on_connection_close(self) -> None:
        """Cancel a read whose client has gone; let a change run to its end."""
        super().on_connection_close()
        if self._task is not None and self.request.method in _READING_METHODS:
            self._task.cancel()

    def prepare(self) -> None:
        """Admit or refuse the request. Raises ``HttpError``."""
        method = self.request.method or ""
        if not self.offers(method):
            return  # the reply is 405, which reveals nothing
        self.authorized = self.context.guard.admit(method, self.request.headers, public=self.public)

    def head(self, *arguments: str) -> Awaitable[None] | None:
        """Handle it as GET; tornado then sends only the headers (RFC 9110 section 9.3.2)."""
        return self.get(*arguments)

    def compute_etag(self) -> None:
        """Send no ETag: no reply may be cached."""

    def reply(self, status: int, document: Document) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document))

    def body(self) -> Document:
        """Return the fields of a JSON object or of a form; ``auth`` admits forms with the token only.

        Raises ``HttpError``.
        """
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _FORMS:
            return {name: self.get_body_argument(name) for name in self.request.body_arguments}
        if not self.request.body:
            return {}
        try:
            fields = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HttpError(_BAD_REQUEST, "the body is not JSON; send a JSON object") from None
        if not isinstance(fields, dict):
            raise HttpError(_BAD_REQUEST, "the body is JSON but not an object; send a JSON object")
        return fields

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Decode a part of the URL or of a form. Raises ``HttpError``."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise HttpError(_BAD_REQUEST, f"{name or 'the path'} is not UTF-8; percent-encode it as UTF-8") from None

    def log_exception(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log only what is a fault of this program; the client reads about everything else in the reply."""
        if error is not None and not isinstance(error, HttpError | AcmeError | StorageError | HTTPError):
            logger.error(
                "the admin API failed while handling %s %s", self.request.method, self.request.path, exc_info=error
            )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the problem document."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, StorageError):
            self.context.manager.health.trouble(error)
        problem = _problem_of(error, status_code)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(self._methods())
            self.set_header("Allow", methods)
            problem = Problem(problem.status, f"this resource does not support the method; it supports {methods}")
        self.set_status(problem.status)
        for name, value in problem.headers(self.context.manager.now()).items():
            self.set_header(name, value)
        self.finish(json.dumps(problem.document()))

    def _methods(self) -> list[str]:
        return sorted(method for method in self.SUPPORTED_METHODS if self.offers(method))

    @classmethod
    def offers(cls, method: str) -> bool:
        if method not in cls.SUPPORTED_METHODS or getattr(cls, method.lower()) == cls._unimplemented_method:
            return False
        return method != "HEAD" or cls.offers("GET")


class NotFoundHandler(BaseHandler):
    """Every path that is no resource."""

    def prepare(self) -> None:
        super().prepare()
        raise _no_resource()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Reply 404 to methods that tornado does not know: there is no other method to suggest."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            status_code, kwargs = HTTPStatus.NOT_FOUND, {"exc_info": (HttpError, _no_resource(), None)}
        super().write_error(status_code, **kwargs)


def _no_resource() -> HttpError:
    return HttpError(404, "there is no such resource; /openapi.json lists them")


def _problem_of(error: BaseException | None, status: int) -> Problem:
    """Return the problem document for an error; ``status`` is tornado's, for errors that have none of their own."""
    if isinstance(error, HttpError):
        return error.problem
    if (kind := kind_of(error)) is not None:
        return Problem(kind.status, str(error), kind, retry_at=error.until if isinstance(error, BackingOff) else None)
    if isinstance(error, AcmeError):
        return Problem(status, str(error))
    if isinstance(error, HTTPError) and status == _BAD_REQUEST:  # tornado itself parses forms
        return Problem(status, "the body is not what its Content-Type says; send a JSON object or a complete form")
    return Problem(status, HTTPStatus(status).description or HTTPStatus(status).phrase)
