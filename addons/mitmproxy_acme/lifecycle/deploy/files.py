"""Deploy files: a certificate's files as certbot lays them out, in a folder that exists while a command runs.

This module knows files and locks; it must not know what the command does. A process that is killed cannot clean up, so
each folder is locked while it is in use, and folders without a lock are removed at the next start.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.certificate import Certificate

logger = logging.getLogger(__name__)

_PREFIX = "mitmproxy-acme-deploy-"
# A folder that is not locked yet. It is empty, and no other process must take it for an abandoned one.
_NEW_PREFIX = "mitmproxy-acme-new-"


@dataclass(frozen=True, slots=True)
class DeployFiles:
    """A folder that only this user can read, and the descriptor of its lock, which child processes inherit."""

    folder: Path
    lock: int


@contextlib.contextmanager
def make_folder() -> Iterator[DeployFiles]:
    """Make a folder in the temporary folder, and remove it after the block. Raises ``OSError``."""
    new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))  # 0700
    lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = new.rename(new.with_name(new.name.replace(_NEW_PREFIX, _PREFIX, 1)))
        try:
            yield DeployFiles(folder, lock)
        finally:
            # Here on the event loop, though it is file I/O: a cancelled hook must leave no key behind.
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def sweep() -> None:
    """Remove the folders, with the keys in them, of this user's processes that were killed. It blocks."""
    swept = sum(_remove(path) for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))
    if swept:
        logger.info("removed the deploy files of a process that was killed (certificates: %d)", swept)


def _remove(path: Path) -> bool:
    """Remove a folder unless it is locked; say whether it was removed."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # others may write there
    except OSError:  # removed meanwhile, no folder, or another user's
        return False
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            return False
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    except OSError:  # it is in use, mostly
        return False
    finally:
        os.close(folder)
    return True


def write_files(folder: Path, certificate: Certificate) -> Path:
    """Write a certificate as certbot does, in a folder named after it, and return that folder. It blocks.

    ``cert.pem``, ``chain.pem``, ``fullchain.pem`` and ``privkey.pem``, readable by this user only. Raises ``OSError``.
    """
    # certbot, too, names the folder of *.example.com example.com
    lineage = folder / certificate.id.removeprefix("*.")
    lineage.mkdir(mode=0o700)
    contents = {
        "cert.pem": certificate.leaf_pem,
        "chain.pem": certificate.intermediates_pem,
        "fullchain.pem": certificate.chain_pem,
        "privkey.pem": certificate.key_pem,
    }
    for name, content in contents.items():
        descriptor = os.open(lineage / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
    return lineage
