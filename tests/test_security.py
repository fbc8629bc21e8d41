"""SECURITY.md names the tests of its promises: each of them is there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PROMISES = (TESTS.parent / "SECURITY.md").read_text()


def test_each_promise_names_a_test_that_exists() -> None:
    files = list(TESTS.rglob("test_*.py"))
    sources = "\n".join(file.read_text() for file in files)
    known = {*re.findall(r"^\s*(?:async )?def (test_\w+)", sources, re.MULTILINE), *(file.name for file in files)}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", PROMISES))
    assert len(named) > 50
    assert named - known == set()


def test_each_row_of_a_table_names_one() -> None:
    rows = [
        line for line in PROMISES.splitlines() if line.startswith("|") and not line.startswith(("|---", "| promise"))
    ]
    assert rows
    assert [row for row in rows if "`test_" not in row.rsplit("|", 2)[1]] == []
