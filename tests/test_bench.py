"""scripts/bench measures: that it runs and what it prints, never how long anything takes."""

import json
import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import bench_scale
from tests.servers.forked import Forked


@pytest.fixture
def _signals() -> Iterator[None]:
    """The script handles SIGTERM: as before, afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_signals")
def test_bench_of_scale_measures_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few certificates go the way of very many: stored, started on, asked for, renewed, and too many for memory."""
    report = tmp_path / "report.json"
    words = ["scale", "--count", "100", "--starts", "1", "--stores", "file", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    monkeypatch.setattr(bench_scale, "Mitmdump", Forked)  # its six starts are not timed here

    with pytest.raises(SystemExit) as end:
        runpy.run_module("scripts.bench", run_name="__main__")

    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    rows = {row["key"]: row for row in json.loads(report.read_text())["rows"]}
    assert list(rows) == ["fill-file", "ready-file", "stored-file", "pass-file", "memory-file", "housekeeping-file"]
    assert all(row["work"] in said.out for row in rows.values())
    assert rows["pass-file"]["met"], rows["pass-file"]  # calls are counted, not timed: the same in every run
    assert rows["housekeeping-file"]["samples"]["calls"]
    assert len(rows["memory-file"]["samples"]["resident_mb"]) == 11
