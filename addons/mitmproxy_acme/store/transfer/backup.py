"""A backup: the records that move, as lines of JSON in one encrypted file.

    {"created": SECONDS, "release": VERSION}
    {"key": KEY, "value": BASE64, "end": SECONDS or null}    in the order in which a transfer copies them
    {"records": NUMBER}

Sealed records are in it as they are stored: to use them one also needs the keys of ``acme_storage_key``. This module
knows these lines; it must not know how they are encrypted, or which of two records is newer.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from acme_storage import Storage, StorageCorrupt

from ... import __version__
from ...core.errors import CertificateError, RecordRefused, SourceError
from ...core.renewal import LAST_TIME, is_time
from ..encryption import RecordCipher
from .encrypted_file import EncryptedReader, EncryptedWriter
from .kinds import MOVING, kind_of
from .record_rules import rules_by_prefix
from .sources import SourceRecord, StorageSource
from .steps import Step, StepOutcome

_PAGE = 500
# A value of 64 KiB in base64, and a key.
_LONGEST_LINE = 128 * 1024


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """When a backup was made (Unix seconds), by which release, and how many records it holds."""

    created: float
    release: str
    records: int


def write_backup(
    storage: Storage, cipher: RecordCipher, file: EncryptedWriter, now: Callable[[], float] = time.time
) -> Iterator[Step]:
    """Write every record that moves, and yield a step for each; ``file`` is complete when this ends.

    A broken record is left out. Proxies may write meanwhile: each record is one that was stored at some moment. Raises
    ``StorageError``.
    """
    source, records = StorageSource(storage), 0
    rules = rules_by_prefix(cipher, source.has, now)
    file.write(_line({"created": now(), "release": __version__}))
    for kind in MOVING:
        for key in (key for page in source.pages(kind.prefix) for key in page):
            try:
                record = source.read(key)
                if record is None:
                    continue
                end = rules[kind.prefix].end(key, _parsed(rules[kind.prefix], key, record.value))
            except (StorageCorrupt, CertificateError) as error:
                yield Step(key, StepOutcome.BROKEN, str(error))
                continue
            if end is not None and end <= now():
                yield Step(key, StepOutcome.ENDED)
                continue
            # What is kept beyond the end of a certificate that ends in the year 9999 has no date; none is read back.
            end = min(end, LAST_TIME) if end is not None else None
            file.write(_line({"key": key, "value": base64.b64encode(record.value).decode(), "end": end}))
            records += 1
            yield Step(key, StepOutcome.COPIED)
    file.write(_line({"records": records}))
    file.close()


def _parsed(rules: Any, key: str, value: bytes) -> Any:
    try:
        return rules.read(key, value)
    except RecordRefused:
        return None


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


class BackupSource:
    """A backup as the source of a transfer. Use ``pages`` from one thread."""

    def __init__(self, file: EncryptedReader) -> None:
        """Read the whole file, so that a damaged one is refused before anything is written. Raises ``SourceError``."""
        self._file = file
        self._page: dict[str, SourceRecord] = {}
        self.facts = self._verify()

    def pages(self, prefix: str) -> Iterator[list[str]]:
        """Yield the sorted keys under ``prefix``, a page at a time. Raises ``SourceError``."""
        page: dict[str, SourceRecord] = {}
        begun = False
        for key, record in self._records():
            if not key.startswith(prefix):
                if begun:  # each kind is in one piece
                    break
                continue
            begun = True
            page[key] = record
            if len(page) == _PAGE:
                self._page, page = page, {}
                yield list(self._page)
        if page:
            self._page = page
            yield list(page)

    def read(self, key: str) -> SourceRecord | None:
        return self._page.get(key)

    def _verify(self) -> BackupFacts:
        count = sum(1 for _ in self._records())
        first = _fields(next(self._file.lines(_LONGEST_LINE), b""))
        created, release = first.get("created"), first.get("release")
        if not (isinstance(created, int | float) and is_time(created) and isinstance(release, str)):
            raise SourceError("the backup does not say when it was made")
        return BackupFacts(float(created), release, count)

    def _records(self) -> Iterator[tuple[str, SourceRecord]]:
        """Yield all records. Raises ``SourceError`` for a line that no release writes, or if the count is wrong."""
        lines = self._file.lines(_LONGEST_LINE)
        next(lines, None)
        count, ended = 0, False
        for line in lines:
            fields = _fields(line)
            if ended:
                raise SourceError("the backup goes on behind its end")
            if "records" in fields:
                ended = fields["records"] == count
                continue
            yield _record(fields)
            count += 1
        if not ended:
            raise SourceError("the backup is not complete: records are missing")


def _record(fields: dict[str, Any]) -> tuple[str, SourceRecord]:
    try:
        key, end = str(fields["key"]), fields["end"]
        value = base64.b64decode(fields["value"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise SourceError("the backup holds a record without a key, a value or an end") from None
    kind = kind_of(key)
    if kind is None or not kind.moves:
        raise SourceError(
            "the backup holds a record of a kind that this release does not know; use the one that wrote it"
        )
    if end is not None and (isinstance(end, bool) or not isinstance(end, int | float) or not is_time(end)):
        raise SourceError("the backup holds a record with an impossible end")
    return key, SourceRecord(value, end)


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SourceError("the backup holds a line that is not JSON")
    return fields
