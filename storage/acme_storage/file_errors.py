"""What the operating system's errors mean to the operator: the file store's only translation of errors.

This module knows nothing about keys or records.
"""

import errno

from acme_storage.errors import StorageUnavailable
from acme_storage.operating_system import user_name

_FULL = "the disk is full; free some space"
_NOT_ALLOWED = "user {user} may not do this there; run as the owner of the folder, or chown -R {user} {folder}"
_NO_LOCKS = "its filesystem cannot lock files; choose a folder on a local disk"
_TOO_MANY_OPEN = "too many files are open; raise the limit (ulimit -n)"

_ADVICE = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the quota of user {user} is used up; free some space, or raise it",
    errno.EFBIG: "the process may not write files of this size; raise the limit (ulimit -f)",
    errno.EROFS: "it is mounted read-only; mount it writable, or choose another folder",
    errno.ENAMETOOLONG: "the path is too long; choose a folder with a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder, or move the file away",
    errno.EISDIR: "there is a folder in place of a file; move it away",
    errno.ENOTEMPTY: "there is a folder in place of a file; move it away",
    errno.ENOENT: "the folder was removed meanwhile; leave it in place while the proxy runs",
    errno.ELOOP: "its symbolic links form a loop; correct them",
    errno.EXDEV: "a folder in it is another filesystem; mount only the whole of {folder}",
    errno.EIO: "the disk failed; read the kernel's log",
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.EMFILE: _TOO_MANY_OPEN,
    errno.ENFILE: _TOO_MANY_OPEN,
}


def unavailable(error: OSError, folder: str) -> StorageUnavailable:
    """Return what to raise for ``error`` in the store at ``folder``: where, why, and how to fix it."""
    # The error's own path is more exact; a full disk's error has none.
    path = error.filename if isinstance(error.filename, str) else folder
    advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return StorageUnavailable(f"storage {path}: {advice.format(user=user_name(), folder=folder)}")
