"""Where ``watch`` gets events: the admin API of a running proxy if one answers, otherwise the storage directly.

Both yield the last hundred events, the newest first, again and again. This module knows when to try again; it must not
know how events are printed.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from acme_storage import StorageError

from ..admin.documents import Document, logged_event
from ..config.config import Config
from ..core.errors import RequestFailed
from ..store.encryption import RecordCipher
from ..store.event_log import EventLog, LoggedEvent, newest
from . import terminal
from .api_backend import ApiBackend
from .environment import open_shared

# Seconds between two readings of the storage, and between two attempts to reach a proxy.
_READ_EVERY, _TRY_EVERY = 3.0, 1.0


def open_events(config: Config, confdir: Path) -> Iterator[list[Document]]:
    """Find a source, print which one on standard error, and return its events. Blocks; the iterator never ends.

    Raises ``ConfigError``; the iterator also ``StorageError`` if the first reading of the storage fails.
    """
    api = ApiBackend.connect(config.admin, config.admin_token) if config.admin is not None else None
    if api is not None:
        terminal.remark(api.description)
        return _of_proxy(api)
    storage = open_shared(config, confdir)
    terminal.remark(f"using the {config.storage.partition(':')[0]} storage directly, without the admin API")
    return _of_storage(EventLog(storage, RecordCipher.of(config)))


def _of_proxy(api: ApiBackend) -> Iterator[list[Document]]:
    """Follow a proxy, through its restarts. Raises ``ConfigError`` if it refuses the token."""
    lost = False
    while True:
        try:
            for history in api.histories():
                if lost:
                    terminal.remark("the proxy answers again")
                    lost = False
                yield history
        except RequestFailed as error:
            if not lost:
                terminal.remark(f"{error}; waiting for it")
                lost = True
        time.sleep(_TRY_EVERY)


def _of_storage(log: EventLog) -> Iterator[list[Document]]:
    known: dict[str, LoggedEvent | None] = log.read(time.time(), {})
    _warn_of_unreadable(known)
    down = False
    while True:
        yield [logged_event(event) for event in newest(known.values())]
        time.sleep(_READ_EVERY)
        try:
            known = log.read(time.time(), known)
            if down:
                terminal.remark("the storage answers again")
                down = False
        except StorageError as error:
            if not down:
                terminal.remark(f"{error}; waiting for it")
                down = True


def _warn_of_unreadable(events: dict[str, LoggedEvent | None]) -> None:
    if unreadable := sum(event is None for event in events.values()):
        terminal.remark(
            f"{unreadable} of the last {len(events)} events cannot be read; set acme_storage_key as the proxies have it"
        )
