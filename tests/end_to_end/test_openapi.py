"""schemathesis, which reads the OpenAPI document and tries whatever it can think of, finds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.admin import TOKEN, with_api
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import fetch
from tests.servers.pebble import Pebble


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["with a token", "without"])
def test_schemathesis_finds_nothing(proxy: StartProxy, pebble: Pebble, tmp_path: Path, token: str) -> None:
    """Every check of every phase holds, nothing is ordered, and nothing is logged as our fault."""
    running, api = with_api(proxy, token=token, acme_domains=["never.example.test"])
    before = pebble.seen()
    words = ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "8"]
    words += ["--generation-database", "none", "--seed", "1", "--no-color", "--request-timeout", "20"]
    words += ["--continue-on-failure", "--exclude-path", "/acme/events"]  # which never ends
    if fetch(f"{api.url}/metrics").status == 404:
        words += ["--exclude-path", "/metrics"]
    if token:
        words += ["-H", f"Authorization: Bearer {token}"]

    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "run", f"{api.url}/openapi.json", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stdout
    assert pebble.seen() == before
    assert "Traceback" not in running.log.read_text()
