"""The admin API's server: tornado, on mitmproxy's own loop.

This module knows routes and their bounds; it must not know what any of them does (``api`` does).
"""

import logging

from tornado.web import RequestHandler

from ..config.admin_settings import AdminListen, AdminSocket
from . import handlers, page
from .base_handler import NotFoundHandler
from .client_connections import BoundedServer
from .context import AdminContext
from .listener import Listener
from .request_limits import LONGEST_BODY, AdminApplication

logger = logging.getLogger(__name__)

# What a request may be: a browser's cookies of this host are the longest that comes, and 4,000 headers take some ms.
_LONGEST_HEADERS = 8_192
_BODY_WITHIN, _REQUEST_WITHIN = 10.0, 30.0
# Each holds a file descriptor, and mitmproxy needs them for its own. So many may be worked on: there is always room for
# another that asks for the node's health.
_MOST_CONNECTIONS, _MOST_AT_WORK = 256, 192


class AdminServer:
    """The admin API of one configuration. Use it from mitmproxy's event loop; ``start`` and ``stop`` do not wait."""

    def __init__(self, context: AdminContext, address: AdminListen) -> None:
        self._context = context
        self._listening = Listener(address)
        self._address = address
        application = AdminApplication(
            context,
            lambda: self._server.at_work >= _MOST_AT_WORK,
            [
                *((path, page.PageHandler, {"context": context, "name": name}) for path, name in page.FILES),
                *((path, resource, {"context": context}) for path, resource in handlers.ROUTES),
            ],
            default_handler_class=NotFoundHandler,
            default_handler_args={"context": context},
            log_function=self._answered,
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
        """Listen. Raises ``ConfigError`` where the address cannot be had."""
        self._server.listen_on(self._listening.open())
        url = self._address if isinstance(self._address, AdminSocket) else f"http://{self._address}/"
        logger.info("the status page and the admin API are at %s", url)

    def _answered(self, handler: RequestHandler) -> None:
        self._server.answered(handler.request.server_connection)  # type: ignore[arg-type]  # ours has HTTP/1

    def stop(self) -> None:
        """Take no new connections."""
        self._server.stop()
        self._listening.remove()

    async def close(self) -> None:
        """End the connections that are open, the watchers' among them."""
        self._context.stream.close()
        await self._server.close_all_connections()
