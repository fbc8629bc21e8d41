"""Chooses the backend of a command.

    API        the admin API of a running proxy, if one answers; the proxy orders
    storage    otherwise the storage directly; a manager of this process orders

This module knows which backend to choose; it must not know how either works.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ..config.config import Config
from ..core.thread_pools import run_in_thread
from . import terminal
from .api_backend import ApiBackend, something_else
from .backend import Backend
from .storage_backend import StorageBackend

_ANSWERS_WITHIN = 10.0  # seconds for a proxy to send its whole status


@contextlib.asynccontextmanager
async def open_backend(config: Config, confdir: Path) -> AsyncIterator[Backend]:
    """Open the backend, and print which one on standard error. Raises ``ConfigError``, ``StorageError``."""
    backend = await _connect(config) or await StorageBackend.open(config, confdir)
    terminal.remark(backend.description)
    try:
        yield backend
    except asyncio.CancelledError:  # a second Ctrl-C does not wait for running work
        raise
    except BaseException:
        await backend.close()
        raise
    await backend.close()


async def _connect(config: Config) -> Backend | None:
    """Return the backend for the admin API of the options; None if nothing listens. Raises ``ConfigError``."""
    address, token = config.admin, config.admin_token
    if address is None:
        return None
    try:  # in a thread so that Ctrl-C ends it; with a timeout for a reply that never ends
        async with asyncio.timeout(_ANSWERS_WITHIN):
            return await run_in_thread(lambda: ApiBackend.connect(address, token))
    except TimeoutError:
        raise something_else(address) from None
