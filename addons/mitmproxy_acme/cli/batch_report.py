"""Prints the results of a batch, one by one and as a summary.

This module knows lines, documents and exit codes; it must not know how a certificate is obtained.
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
    "the CA could not validate: it connects to port 80 of each name, where a proxy on this storage must answer; "
    "mitmproxy-acme check NAME finds what prevents that"
)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """``json`` prints a document for each certificate, ``advise`` adds what to do about failed validations."""

    json: bool
    advise: bool
    parallel: int


class BatchReport:
    """The results of one batch."""

    def __init__(self, options: ReportOptions, progress: terminal.Progress, counted: Sequence[Outcome]) -> None:
        self._options = options
        self._progress = progress
        self._counted = counted
        # A progress bar and lines on one terminal would disturb each other.
        self._lines = not options.json and not (progress.shown and sys.stdout.isatty())
        self._counts: Counter[Outcome] = Counter()
        self._failed: list[Result] = []

    def add(self, result: Result) -> None:
        """Count one result, and print it."""
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
        """Print what failed, why, and when to try again; return the exit code."""
        say = terminal.remark if self._options.json else terminal.say
        for result in self._failed:
            terminal.remark(f"failed {result.host}: {result.reason}{_when(result)}")
        if self._options.advise and any(result.unvalidated for result in self._failed):
            terminal.remark(_ADVICE)
        if batch.stopped:
            terminal.remark(f"stopped, because the others would fail too: {batch.stopped}")
        say(self._summary())
        if batch.interrupted:
            terminal.remark("interrupted; run the command again to continue")
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
    """Run ``act`` for each name, print the results, and return the exit code. ``settled`` results are known already."""
    with terminal.Progress(len(names) + len(settled)) as progress:
        report = BatchReport(options, progress, counted)
        batch = Batch(act, report.add)
        for result in settled:
            report.add(result)
        leaving = "interrupted: waiting for running orders; press Ctrl-C again to quit now"
        await batch.run(names, options.parallel, lambda: progress.remark(leaving))
    return report.end(batch)


def _line(result: Result) -> str:
    line = f"{result.outcome.value} {result.host}"
    document = result.document
    return f"{line}, valid until {document['expires_at'][:10]}, issued by {document['issuer_cn']}" if document else line


def _when(result: Result) -> str:
    if result.retry_at is None:
        return ""
    wait = unix_time(result.retry_at) - time.time()
    return f"; next attempt in {describe_duration(wait)} ({result.retry_at})" if wait > 0 else "; try again"


def _document(result: Result) -> Document:
    known: dict[str, Any] = dict(result.document) if result.document else {}
    failure = {"reason": result.reason, "retry_at": result.retry_at} if result.reason else {}
    return {
        "host": result.host,
        "outcome": result.outcome.value.replace(" ", "_"),
        **failure,
        "certificate": known or None,
    }
