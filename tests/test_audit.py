"""What scripts/audit makes of pip-audit's report."""

import json
import sys
from pathlib import Path

import pytest

from scripts import audit_report

KNOWN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found"}
VULNERABLE = {"name": "c", "version": "3", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["3.1"]}]}


@pytest.mark.parametrize(("found", "code"), [([KNOWN], 0), ([KNOWN, SKIPPED], 2), ([KNOWN, VULNERABLE, SKIPPED], 1)])
def test_exit_code_says_what_is_known(
    found: list[object], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"dependencies": found}))
    monkeypatch.setattr(sys, "argv", ["audit_report", str(report)])
    assert audit_report.main() == code


def test_each_vulnerability_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"dependencies": [VULNERABLE]}))
    monkeypatch.setattr(sys, "argv", ["audit_report", str(report)])
    audit_report.main()
    assert capsys.readouterr().out.splitlines() == [
        "c 3: PYSEC-2026-1, fixed in 3.1",
        "1 versions, 1 known vulnerabilities, 0 not looked up",
    ]
