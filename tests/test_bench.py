"""scripts/bench measures: that it runs and what it prints, never how long anything takes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_bench_of_scale_measures_every_row(tmp_path: Path) -> None:
    """A few certificates go the way of very many: stored, started on, asked for, renewed, and too many for memory."""
    report = tmp_path / "report.json"
    words = ["scale", "--count", "100", "--starts", "1", "--stores", "file", "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench", *words], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(report.read_text())["rows"]}
    assert list(rows) == ["fill-file", "ready-file", "stored-file", "pass-file", "memory-file", "housekeeping-file"]
    assert all(row["work"] in done.stdout for row in rows.values())
    assert rows["pass-file"]["met"], rows["pass-file"]  # calls are counted, not timed: the same in every run
    assert rows["housekeeping-file"]["samples"]["calls"]
    assert len(rows["memory-file"]["samples"]["resident_mb"]) == 11
