"""Prints what becomes of the records of a copy, a backup or a restore.

This module knows lines, documents and exit codes; it must not know how records are copied.
"""

from collections import Counter

from ..store.transfer.kinds import MOVING, kind_of
from ..store.transfer.steps import TROUBLE, WRITTEN, Step, StepOutcome
from . import terminal

# Lines of one outcome; after a switch there may be one for each certificate.
_MOST_LINES = 20
# These are said of single records, not only counted.
_TOLD = (*TROUBLE, StepOutcome.KEPT, StepOutcome.OVERWRITTEN, StepOutcome.REMOVED)


class TransferReport:
    """The steps of one command. ``copied`` says what the command does to a record."""

    def __init__(self, progress: terminal.Progress, *, json: bool, dry: bool = False, copied: str = "copied") -> None:
        self._progress = progress
        self._json = json
        self._dry = dry
        self._copied = f"would be {copied}" if dry else copied
        self._counts: Counter[tuple[str, StepOutcome]] = Counter()
        self._lines: Counter[StepOutcome] = Counter()

    def add(self, step: Step, *, each: bool = False) -> None:
        """Count a step, and print it if a person should know; ``each`` prints what was written too."""
        kind = kind_of(step.key)
        self._counts[kind.name if kind is not None else "", step.outcome] += 1
        if self._json:
            if step.outcome is not StepOutcome.UNCHANGED:
                terminal.say_document({"key": step.key, "outcome": step.outcome.name.lower(), "why": step.why})
        elif (step.outcome in _TOLD and (step.why or step.outcome in TROUBLE)) or (each and step.outcome in WRITTEN):
            self._tell(step, limited=not each)
        self._progress.step(f"{self._copied} {self.count(StepOutcome.COPIED)}")

    def count(self, outcome: StepOutcome) -> int:
        return sum(number for (_, counted), number in self._counts.items() if counted is outcome)

    @property
    def failed(self) -> bool:
        """Whether a person must look at a record."""
        return any(self.count(outcome) for outcome in TROUBLE)

    def summarize(self, error: str = "") -> None:
        """Print the counts by kind; ``error`` is why it ended early."""
        if self._json:
            terminal.say_document(self._document(error))
            return
        outcomes = [outcome for outcome in StepOutcome if self.count(outcome)]
        rows = [
            [kind.name, *(str(self._counts[kind.name, outcome]) for outcome in outcomes)]
            for kind in MOVING
            if any(self._counts[kind.name, outcome] for outcome in outcomes)
        ]
        if not rows:
            terminal.say("no records were copied" if error else "no records were found")
            return
        for line in terminal.table(["records", *map(self._word, outcomes)], rows):
            terminal.say(line)

    def _tell(self, step: Step, *, limited: bool) -> None:
        self._lines[step.outcome] += 1
        number, word = self._lines[step.outcome], self._word(step.outcome)
        if not limited or number <= _MOST_LINES:
            self._progress.remark(f"{word}: {step.key}{': ' if step.why else ''}{step.why}")
        elif number == _MOST_LINES + 1:
            self._progress.remark(f"{word}: more of them; --json prints all")

    def _word(self, outcome: StepOutcome) -> str:
        return self._copied if outcome is StepOutcome.COPIED else outcome.value

    def _document(self, error: str) -> dict[str, object]:
        kinds: dict[str, dict[str, int]] = {}
        for (kind, outcome), number in sorted(self._counts.items(), key=lambda item: (item[0][0], item[0][1].name)):
            kinds.setdefault(kind, {})[outcome.name.lower()] = number
        totals = {outcome.name.lower(): self.count(outcome) for outcome in StepOutcome}
        return {"summary": totals, "kinds": kinds, "dry_run": self._dry} | ({"error": error} if error else {})
