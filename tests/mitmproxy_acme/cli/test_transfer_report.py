"""What a person reads of a copy: single records that need a look, and counts of all others."""

import json
from collections.abc import Callable

import pytest

from mitmproxy_acme.cli.terminal import Progress
from mitmproxy_acme.cli.transfer_report import TransferReport
from mitmproxy_acme.store.transfer.steps import TROUBLE, Step, StepOutcome

type Said = Callable[[], tuple[list[str], list[str]]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Return the lines of standard output and standard error since the last call."""

    def read() -> tuple[list[str], list[str]]:
        out, err = capsys.readouterr()
        return out.splitlines(), err.splitlines()

    return read


def report(*, json: bool = False, dry: bool = False) -> TransferReport:
    return TransferReport(Progress(None, "record"), json=json, dry=dry)


def test_twenty_of_a_kind_are_told(said: Said) -> None:
    """More of them are counted only, each outcome by itself."""
    made = report()
    for number in range(25):
        made.add(Step(f"certificates/{number}.test", StepOutcome.BROKEN, "it is junk"))
    made.add(Step("accounts/x", StepOutcome.FAILED, "no room"))

    assert said()[1] == [
        *(f"broken at the source: certificates/{number}.test: it is junk" for number in range(20)),
        "broken at the source: more of them; --json prints all",
        "not stored by the destination: accounts/x: no room",
    ]
    assert made.count(StepOutcome.BROKEN) == 25


def test_what_needs_no_look_is_counted_only(said: Said) -> None:
    """Unless each is asked for; what is kept for a reason is told with it."""
    made = report()
    made.add(Step("certificates/a.test", StepOutcome.COPIED))
    made.add(Step("certificates/b.test", StepOutcome.UNCHANGED))
    made.add(Step("certificates/c.test", StepOutcome.KEPT))
    assert said()[1] == []

    made.add(Step("certificates/d.test", StepOutcome.KEPT, "it ends later"))
    for number in range(25):
        made.add(Step(f"certificates/{number}.test", StepOutcome.COPIED), each=True)
    assert said()[1] == [
        "newer at the destination: certificates/d.test: it ends later",
        *(f"copied: certificates/{number}.test" for number in range(25)),
    ]


@pytest.mark.parametrize("outcome", StepOutcome)
def test_trouble_is_a_failure(outcome: StepOutcome) -> None:
    made = report()
    made.add(Step("certificates/a.test", outcome))
    assert made.failed == (outcome in TROUBLE)


def test_summary_is_a_table_of_what_occurred(said: Said) -> None:
    made = report(dry=True)
    made.add(Step("certificates/a.test", StepOutcome.COPIED))
    made.add(Step("certificates/b.test", StepOutcome.BROKEN, "junk"))
    made.add(Step("accounts/x", StepOutcome.COPIED))
    said()

    made.summarize()

    assert [line.split("  ")[0] for line in said()[0]] == ["records", "accounts", "certificates"]


@pytest.mark.parametrize(("error", "line"), [("", "no records were found"), ("down", "no records were copied")])
def test_nothing_at_all_is_said(said: Said, error: str, line: str) -> None:
    report().summarize(error)
    assert said() == ([line], [])


def test_documents_have_every_change_and_the_counts(said: Said) -> None:
    made = report(json=True)
    made.add(Step("certificates/a.test", StepOutcome.UNCHANGED))
    made.add(Step("certificates/b.test", StepOutcome.COPIED))
    made.summarize("the storage went away")

    out, err = said()
    step, summary = map(json.loads, out)
    assert step == {"key": "certificates/b.test", "outcome": "copied", "why": ""}
    assert summary["kinds"] == {"certificates": {"copied": 1, "unchanged": 1}}
    assert (summary["dry_run"], summary["error"]) == (False, "the storage went away")
    assert err == []
