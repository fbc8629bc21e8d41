"""The webhook: events of certificates, POSTed as JSON to the operator's URL.

This module knows HTTP, signatures and retries; it must not know the documents. A URL that is slow or down delays only
its own messages: they have threads of their own and a bounded queue.

With ``acme_webhook_secret`` messages are signed as https://www.standardwebhooks.com describes: ``webhook-signature`` is
``v1,`` and the base64 of the HMAC-SHA-256 of ``ID.TIMESTAMP.BODY``, the values of ``webhook-id``, ``webhook-timestamp``
and the body.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from .. import __version__
from ..core.events import Event
from ..core.structured_logging import fields
from ..lifecycle.manager import Manager
from . import documents

logger = logging.getLogger(__name__)

_MOST_QUEUED = 1_000
_CONNECT, _REPLY = 5.0, 10.0
# Seconds between the attempts for one message; with the timeouts it is dropped after nine minutes.
_WAITS = (1.0, 5.0, 30.0, 120.0, 300.0)
_CLOSE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class _Message:
    """One document; ``id`` is the same in all attempts, so that the receiver can recognize duplicates."""

    id: str
    event: str
    host: str
    body: bytes


class Webhook:
    """Sends the events of one manager, in order, from ``start`` to ``close``.

    Use it from one event loop. ``waits`` and ``timeouts`` (connect, reply; seconds) are arguments for tests.
    """

    def __init__(
        self,
        manager: Manager,
        *,
        waits: Sequence[float] = _WAITS,
        timeouts: tuple[float, float] = (_CONNECT, _REPLY),
        most_queued: int = _MOST_QUEUED,
    ) -> None:
        self._manager = manager
        self._url = manager.config.webhook
        self._key = manager.config.webhook_key
        self._waits, self._timeouts, self._most = waits, timeouts, most_queued
        self._queue: deque[_Message] = deque()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._under_way: asyncio.Task[str] | None = None
        self._closing = asyncio.Lock()
        self._dropping = self._failing = False
        manager.events.subscribe(self._happened)

    def start(self) -> None:
        # Created on the loop directly, since the reference is kept here.
        self._task = asyncio.get_running_loop().create_task(self._run(), name="acme webhook")

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            while self._queue:
                await self._deliver(self._queue[0])
            self._woken.clear()

    async def close(self, within: float = _CLOSE_WITHIN) -> None:
        """Try each queued message once more, for ``within`` seconds in all; drop the rest.

        Call it again for messages that were queued since.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(within), self._closing:
                if self._under_way is not None and not await self._under_way and self._queue:
                    self._queue.popleft()  # already delivered: do not send it twice
                while self._queue:
                    if trouble := await self._attempt(self._queue[0]):
                        self._drop(self._queue[0], trouble)
                    self._queue.popleft()
        except TimeoutError:
            logger.warning(
                "%s: %d messages are dropped at the end of the process",
                self._label,
                len(self._queue),
                extra=self._fields("webhook_lost"),
            )

    def _happened(self, event: Event) -> None:
        id, now = f"evt_{secrets.token_hex(12)}", self._manager.now()
        document = documents.event(event, self._manager.config, id, now)
        if document is None:
            return
        if len(self._queue) >= self._most:
            self._drop_oldest()
        self._queue.append(_Message(id, document["event"], document["host"], json.dumps(document).encode()))
        self._woken.set()

    def _drop_oldest(self) -> None:
        """Drop the oldest message but the first, which is being sent."""
        del self._queue[min(1, len(self._queue) - 1)]
        if not self._dropping:
            logger.warning(
                "%s: %d messages are queued, so the oldest are dropped",
                self._label,
                self._most,
                extra=self._fields("webhook_full"),
            )
        self._dropping = True

    async def _deliver(self, message: _Message) -> None:
        """Send one message, or drop it after the last attempt; it stays first in the queue until then."""
        trouble = ""
        for wait in (0.0, *self._waits):
            await asyncio.sleep(wait)
            trouble = await self._attempt(message)
            if not trouble:
                break
            if not self._failing:
                logger.warning(
                    "%s: %s; retrying for some minutes",
                    self._label,
                    trouble,
                    extra=self._fields("webhook_down", reason=trouble),
                )
            self._failing = True
        if trouble:
            self._drop(message, trouble)
        elif self._failing:
            logger.info("%s works again", self._label, extra=self._fields("webhook_up"))
            self._failing = self._dropping = False
        if self._queue and self._queue[0] is message:
            self._queue.popleft()

    async def _attempt(self, message: _Message) -> str:
        """Send it once; return what went wrong, empty if it was delivered."""
        headers = {"Content-Type": "application/json", "User-Agent": f"mitmproxy-acme/{__version__}"}
        headers |= sign(self._key, message.id, int(self._manager.now()), message.body)
        try:
            # requests applies its timeouts to each read: a server that sends one byte at a time is left to its thread.
            async with asyncio.timeout(sum(self._timeouts)):
                post = self._manager.threads.webhook(self._post, message.body, headers)
                self._under_way = asyncio.get_running_loop().create_task(post, name="acme webhook message")
                trouble = await asyncio.shield(self._under_way)
        except TimeoutError:
            trouble = "no reply in time"
        self._under_way = None
        return trouble

    def _post(self, body: bytes, headers: dict[str, str]) -> str:
        try:
            with requests.Session() as session:
                session.trust_env = False  # HTTPS_PROXY may be this proxy itself
                with session.post(
                    self._url, body, headers=headers, timeout=self._timeouts, allow_redirects=False, stream=True
                ) as response:
                    status = response.status_code
        except (requests.RequestException, ValueError) as error:
            return f"it cannot be reached ({type(error).__name__})"  # without the text, which contains the URL
        if 300 <= status < 400:
            return f"it replies {status}; set the URL that it redirects to"
        return "" if 200 <= status < 300 else f"it replies {status}"

    def _drop(self, message: _Message, trouble: str) -> None:
        logger.warning(
            "%s: message %s (%s) was not delivered: %s",
            self._label,
            message.event,
            message.id,
            trouble,
            extra=self._fields("webhook_lost", name=message.host, id=message.id, reason=trouble),
        )

    def _fields(self, event: str, **details: str) -> dict[str, dict[str, object]]:
        return fields(event, node=self._manager.node.id, **details)

    @property
    def _label(self) -> str:
        """The webhook by its host alone: the path is often the secret."""
        return f"the webhook at {urlsplit(self._url).hostname}"


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message; without a key they have no signature."""
    headers = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    if key:
        digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
