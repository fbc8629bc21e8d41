"""Chooses the backend of a command.

    API        the admin API of a running proxy, where one answers: the proxy orders
    storage    the storage itself, else: a manager of this process orders

This module knows which one is taken; it does not know how either works.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ..config.config import Config
from ..core.thread_pools import in_a_thread
from . import terminal
from .api_backend import ApiBackend, something_else
from .backend import Backend
from .storage_backend import StorageBackend

_ANSWERS_WITHIN = 10.0  # seconds in which a proxy has said all that there is to say of its state


@contextlib.asynccontextmanager
async def open_backend(config: Config, confdir: Path) -> AsyncIterator[Backend]:
    """Give the way that there is, having said which on standard error. Raises ``ConfigError``."""
    certificates = await _by_a_proxy(config) or await StorageBackend.open(config, confdir)
    terminal.remark(certificates.description)
    try:
        yield certificates
    except asyncio.CancelledError:  # a second Ctrl-C: what is under way is not waited for
        raise
    except BaseException:
        await certificates.close()
        raise
    await certificates.close()


async def _by_a_proxy(config: Config) -> Backend | None:
    """Return the way by the admin API that the options name; None where nobody listens. Raises ``ConfigError``."""
    address, token = config.admin, config.admin_token
    if address is None:
        return None
    try:  # in a thread, so that Ctrl-C ends it, and with a bound for what never ends its reply
        async with asyncio.timeout(_ANSWERS_WITHIN):
            return await in_a_thread(lambda: ApiBackend.connect(address, token))
    except TimeoutError:
        raise something_else(address) from None
