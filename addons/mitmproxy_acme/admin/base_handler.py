"""Resource: what every resource of the admin API has in common.

This module knows admission, headers and problem documents (RFC 9457); it must not know what a resource does.
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

from ..core.errors import (
    AcmeError,
    BackingOff,
    IssuanceError,
    NameNotAllowed,
    NoControlNode,
    NotFound,
    RecordRefused,
    WrongNode,
)
from .auth import HttpError
from .context import AdminContext
from .documents import Document

logger = logging.getLogger(__name__)

# The page is the strictest case; for JSON it costs nothing.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOOKS = ("GET", "HEAD")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")  # both of which Kong takes
_BAD_REQUEST, _CONFLICT, _FAILED, _UNAVAILABLE = 400, 409, 500, 503


def problem(status: int, message: str) -> Document:
    """Return a problem document."""
    title = HTTPStatus(status).phrase
    # Kong calls it a message.
    return {"type": "about:blank", "title": title, "status": status, "detail": message, "message": message}


class BaseHandler(RequestHandler):
    """One resource. Its methods raise ``HttpError``, ``AcmeError``, ``StorageError``: each is a problem document."""

    public = False  # it tells nothing, and needs no token
    always = False  # it is answered however many other requests are worked on
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
        # Cancelled where the connection or mitmproxy ends, for whom nobody waits: tornado would print a traceback.
        with contextlib.suppress(asyncio.CancelledError):
            await super()._execute(transforms, *args, **kwargs)

    def on_connection_close(self) -> None:
        """Look no further where nobody waits for it any more; what is changed is brought to its end."""
        super().on_connection_close()
        if self._task is not None and self.request.method in _LOOKS:
            self._task.cancel()

    def prepare(self) -> None:
        """Admit the request, or refuse it. Raises ``HttpError``."""
        method = self.request.method or ""
        if not self.offers(method):
            return  # 405, which tells nothing
        self.authorized = self.context.guard.admit(method, self.request.headers, public=self.public)

    def head(self, *arguments: str) -> Awaitable[None] | None:
        """As GET, of which tornado then sends the headers alone (RFC 9110 section 9.3.2)."""
        return self.get(*arguments)

    def compute_etag(self) -> None:
        """No reply is to be kept, so none is named."""

    def reply(self, status: int, document: Document) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document))

    def body(self) -> Document:
        """Return the fields of a JSON object, or of a form where the token came along. Raises ``HttpError``."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _FORMS:
            return {name: self.get_body_argument(name) for name in self.request.body_arguments}
        if not self.request.body:
            return {}
        try:
            fields = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HttpError(_BAD_REQUEST, "the body is not JSON; send an object") from None
        if not isinstance(fields, dict):
            raise HttpError(_BAD_REQUEST, "the body is JSON, but not an object; send one")
        return fields

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Read a part of the URL or of a form. Raises ``HttpError``."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise HttpError(_BAD_REQUEST, f"{name or 'the path'} is not UTF-8; percent-encode it so") from None

    def log_exception(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log what is nobody's fault but ours; the rest is told to who asked."""
        if error is not None and not isinstance(error, HttpError | AcmeError | StorageError | HTTPError):
            logger.error("the admin API failed at %s %s", self.request.method, self.request.path, exc_info=error)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the problem document."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, StorageError):
            self.context.manager.health.trouble(error)
        status, message = _status_of(error, status_code), _message_of(error, status_code)
        self.set_status(status)
        if isinstance(error, HttpError):
            for name, value in error.headers(self.context.manager.now()).items():
                self.set_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(self._methods())
            self.set_header("Allow", methods)
            message = f"there is no such method here; there is {methods}"
        if isinstance(error, BackingOff) and error.until is not None:
            self.set_header("Retry-After", str(max(1, round(error.until - self.context.manager.now()))))
        self.set_header("Content-Type", "application/problem+json")
        self.finish(json.dumps(problem(status, message)))

    def _methods(self) -> list[str]:
        return sorted(method for method in self.SUPPORTED_METHODS if self.offers(method))

    @classmethod
    def offers(cls, method: str) -> bool:
        if method not in cls.SUPPORTED_METHODS or getattr(cls, method.lower()) == cls._unimplemented_method:
            return False
        return method != "HEAD" or cls.offers("GET")


class NotFoundHandler(BaseHandler):
    """Whatever else is asked for."""

    def prepare(self) -> None:
        super().prepare()
        raise _nothing()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A method that tornado does not know has no other to be named in its place."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            status_code, kwargs = HTTPStatus.NOT_FOUND, {"exc_info": (HttpError, _nothing(), None)}
        super().write_error(status_code, **kwargs)


def _nothing() -> HttpError:
    return HttpError(404, "there is no such resource; /openapi.json lists them")


def _status_of(error: BaseException | None, otherwise: int) -> int:
    match error:
        case HttpError():
            return error.status
        case NameNotAllowed():
            return _BAD_REQUEST
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case WrongNode():
            return _CONFLICT
        case IssuanceError() | NoControlNode() | RecordRefused():
            return _FAILED  # Kong's, whatever the CA's reason
        case StorageError():
            return _UNAVAILABLE
    return otherwise


def _message_of(error: BaseException | None, status: int) -> str:
    if isinstance(error, HttpError | AcmeError | StorageError):
        return str(error)
    if isinstance(error, HTTPError) and status == _BAD_REQUEST:  # of tornado, which reads forms by itself
        return "the body is not what its Content-Type says; send a JSON object, or a whole form"
    return HTTPStatus(status).description or HTTPStatus(status).phrase
