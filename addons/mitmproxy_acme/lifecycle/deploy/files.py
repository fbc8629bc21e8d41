"""Deploy files: a certificate's files as certbot lays them out, in a folder that exists while a command runs.

This module knows files and locks; it must not know what the command does. A process that is killed cannot clean up, so
each folder is locked while it is in use, and folders without a lock are removed at the next start.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.certificate import Certificate
from ...core.operating_system import claim_abandoned, claim_folder

logger = logging.getLogger(__name__)

_PREFIX = "mitmproxy-acme-deploy-"
# A folder that is not locked yet. It is empty, and no other process must take it for an abandoned one.
_NEW_PREFIX = "mitmproxy-acme-new-"


@dataclass(frozen=True, slots=True)
class DeployFiles:
    """A folder that only this user can read, and what child processes inherit so that it stays locked."""

    folder: Path
    inherited: Sequence[int]


@contextlib.contextmanager
def make_folder() -> Iterator[DeployFiles]:
    """Make a folder in the temporary folder, and remove it after the block. Raises ``OSError``."""
    new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))  # 0700
    with claim_folder(new) as inherited:
        folder = new.rename(new.with_name(new.name.replace(_NEW_PREFIX, _PREFIX, 1)))
        try:
            yield DeployFiles(folder, inherited)
        finally:
            # Here on the event loop, though it is file I/O: a cancelled hook must leave no key behind.
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders, with the keys in them, of this user's processes that were killed. It blocks."""
    swept = sum(_remove(path) for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))
    if swept:
        logger.info("removed the deploy files of a process that was killed (certificates: %d)", swept)


def _remove(path: Path) -> bool:
    """Remove a folder unless it is in use; say whether it was removed."""
    try:
        with claim_abandoned(path) as claimed:
            if claimed:
                shutil.rmtree(path)
    except OSError:  # in use, removed meanwhile, no folder, or another user's
        return False
    return claimed


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
        with os.fdopen(descriptor, "w", newline="") as file:
            file.write(content)
    return lineage
