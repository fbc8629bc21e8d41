"""The server of the admin API: tornado on mitmproxy's event loop.

This module knows routes and bounds; it must not know what a resource does (``handlers`` does).
"""

import logging

from tornado.web import RequestHandler

from ...config.admin_settings import AdminListen, AdminSocket
from ..context import AdminContext
from . import handlers, page
from .base_handler import NotFoundHandler
from .client_connections import BoundedServer
from .listener import Listener
from .request_limits import LONGEST_BODY, AdminApplication

logger = logging.getLogger(__name__)

# Bytes. The cookies of a browser for this host are the longest headers that come; 4,000 headers take some ms to parse.
_LONGEST_HEADERS = 8_192
_BODY_WITHIN, _REQUEST_WITHIN = 10.0, 30.0
# Each connection holds a file descriptor, which mitmproxy needs too. With fewer requests in progress than connections,
# one for the node's health is always answered.
_MOST_CONNECTIONS, _MOST_REQUESTS = 256, 192


class AdminServer:
    """The admin API of one configuration. Use it from mitmproxy's event loop; ``start`` and ``stop`` do not block."""

    def __init__(self, context: AdminContext, address: AdminListen) -> None:
        self._context = context
        self._listener = Listener(address)
        self._address = address
        application = AdminApplication(
            context,
            lambda: self._server.at_work >= _MOST_REQUESTS,
            [
                *((path, page.PageHandler, {"context": context, "name": name}) for path, name in page.FILES),
                *((path, handler, {"context": context}) for path, handler in handlers.ROUTES),
            ],
            default_handler_class=NotFoundHandler,
            default_handler_args={"context": context},
            log_function=self._on_reply,
        )
        self._server = BoundedServer(
            application,
            most=_MOST_CONNECTIONS,
            max_body_size=LONGEST_BODY,
            max_header_size=_LONGEST_HEADERS,
            body_timeout=_BODY_WITHIN,
            idle_connection_timeout=_REQUEST_WITHIN,
        )

    def start(self) -> None:
        """Listen. Raises ``ConfigError`` if the address is not available."""
        self._server.listen_on(self._listener.open())
        url = self._address if isinstance(self._address, AdminSocket) else f"http://{self._address}/"
        logger.info("the status page and the admin API are at %s", url)

    def _on_reply(self, handler: RequestHandler) -> None:
        self._server.answered(handler.request.server_connection)  # type: ignore[arg-type]  # it is HTTP/1

    def stop(self) -> None:
        """Accept no new connections."""
        self._server.stop()
        self._listener.remove()

    async def close(self) -> None:
        """Close all connections, those of watchers included."""
        self._context.stream.close()
        self._context.history_stream.close()
        await self._server.close_all_connections()
