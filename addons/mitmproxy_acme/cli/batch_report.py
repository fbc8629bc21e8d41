"""Report: what became of many certificates, told as it happens and in the end.

This module knows lines, documents and exit codes; it must not know how a certificate is had.
"""

import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..admin.certificate_service import Outcome
from ..admin.documents import Document, unix_time
from ..core.names import ServerName
from ..core.renewal import describe_duration
from . import terminal
from .backend import Result
from .batch_runner import Batch

FAILED, INTERRUPTED = 1, 130
_ADVICE = (
    "the CA could not validate: it asks on port 80 of each name, where a proxy that shares this storage must answer; "
    "mitmproxy-acme check NAME looks for what is in the way"
)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """How it is told: ``json`` one document for each certificate, ``advise`` what to do about validation."""

    json: bool
    advise: bool
    parallel: int


class BatchReport:
    """What became of one run over many."""

    def __init__(self, options: ReportOptions, progress: terminal.Progress, counted: Sequence[Outcome]) -> None:
        self._options = options
        self._progress = progress
        self._counted = counted
        # A bar and lines on one terminal would be in each other's way.
        self._lines = not options.json and not (progress.shown and sys.stdout.isatty())
        self._counts: Counter[Outcome] = Counter()
        self._failed: list[Result] = []

    def tell(self, result: Result) -> None:
        """Take in one result, and say it."""
        self._counts[result.outcome] += 1
        if result.outcome is Outcome.FAILED:
            self._failed.append(result)
        if self._options.json:
            terminal.say_document(_document(result))
        elif self._lines and result.outcome in (Outcome.OBTAINED, Outcome.RENEWED):
            terminal.say(_line(result))
        if result.outcome is not Outcome.NOT_TRIED:
            self._progress.step(self._summary())

    def end(self, batch: Batch) -> int:
        """Say what failed, why, and when to try again; return the exit code."""
        say = terminal.remark if self._options.json else terminal.say
        for result in self._failed:
            terminal.remark(f"failed {result.host}: {result.reason}{_when(result)}")
        if self._options.advise and any(result.unvalidated for result in self._failed):
            terminal.remark(_ADVICE)
        if batch.stopped:
            terminal.remark(f"stopped, for no other would fare better now: {batch.stopped}")
        say(self._summary())
        if batch.interrupted:
            terminal.remark("interrupted; run it again to go on where it ended")
            return INTERRUPTED
        return FAILED if self._failed or self._counts[Outcome.NOT_TRIED] else 0

    def _summary(self) -> str:
        counted = [*self._counted, Outcome.FAILED, *([Outcome.NOT_TRIED] if self._counts[Outcome.NOT_TRIED] else [])]
        return ", ".join(f"{outcome.value} {self._counts[outcome]}" for outcome in counted)


async def run_batch(
    act: Callable[[ServerName], Awaitable[Result]],
    names: Sequence[ServerName],
    options: ReportOptions,
    counted: Sequence[Outcome],
    settled: Sequence[Result] = (),
) -> int:
    """Do ``act`` to each, tell it, and return the exit code. ``settled`` are results that are known already."""
    with terminal.Progress(len(names) + len(settled)) as progress:
        report = BatchReport(options, progress, counted)
        batch = Batch(act, report.tell)
        for result in settled:
            report.tell(result)
        leaving = "interrupted: what runs is ending; Ctrl-C again leaves it"
        await batch.run(names, options.parallel, lambda: progress.remark(leaving))
    return report.end(batch)


def _line(result: Result) -> str:
    said = f"{result.outcome.value} {result.host}"
    document = result.document
    return f"{said}, until {document['expires_at'][:10]}, by {document['issuer_cn']}" if document else said


def _when(result: Result) -> str:
    if result.retry_at is None:
        return ""
    wait = unix_time(result.retry_at) - time.time()
    return f"; to be tried again in {describe_duration(wait)} ({result.retry_at})" if wait > 0 else "; try again"


def _document(result: Result) -> Document:
    known: dict[str, Any] = dict(result.document) if result.document else {}
    failure = {"reason": result.reason, "retry_at": result.retry_at} if result.reason else {}
    return {
        "host": result.host,
        "outcome": result.outcome.value.replace(" ", "_"),
        **failure,
        "certificate": known or None,
    }
