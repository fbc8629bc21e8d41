"""What a command works on: the configuration of the proxies, and their storage.

This module knows where both are read from; it must not know the commands.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from acme_storage import Storage, open_storage

from ..ca.account_session import AccountSession
from ..config import options
from ..config.config import Config
from ..config.misspelt_options import find_misspelt
from ..core.errors import ConfigError
from ..lifecycle.manager import Manager
from . import terminal
from .mitmproxy_options import read_settings


def read_config(confdir: Path, given: Sequence[str]) -> Config:
    """Read the options as mitmproxy would; report misspelt ones, which it ignores. Raises ``ConfigError``."""
    settings = read_settings(confdir, given)
    for sentence in find_misspelt(settings):
        terminal.remark(sentence)
    return Config.from_options({name: value for name, value in settings.items() if name in options.NAMES})


def open_shared(config: Config, confdir: Path) -> Storage:
    """Open the storage of the options if several processes can share it. Raises ``ConfigError``."""
    return open_url("acme_storage", config.storage, confdir)


def open_url(option: str, url: str, confdir: Path) -> Storage:
    """Open the storage that ``option`` names if several processes can share it. Raises ``ConfigError``."""
    if url.lower().startswith("memory:"):
        raise ConfigError(f"{option}: memory: belongs to one process; give the storage of the proxies")
    try:
        return open_storage(url, default_folder=confdir)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


async def at_account(config: Config, confdir: Path, ca: str, work: Callable[[AccountSession], Awaitable[None]]) -> None:
    """Do ``work`` with the account at ``ca``, an entry of ``acme_ca``; at the first entry if it is empty.

    Raises ``ConfigError``, ``IssuanceError``, ``StorageError``.
    """
    manager = Manager(config, open_shared(config, confdir))
    try:
        names = [known.name for known in manager.cas]
        if ca and ca not in names:
            raise ConfigError(f"--ca: {ca!r} is not in acme_ca; write one of {', '.join(names)}")
        await work(manager.cas[names.index(ca or names[0])].issuer.account)
    finally:
        await manager.close()
