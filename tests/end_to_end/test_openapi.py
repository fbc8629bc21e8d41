"""schemathesis, which generates requests from the OpenAPI document, finds nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acme_storage import Storage
from tests.end_to_end.admin import TOKEN, with_api
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import fetch
from tests.servers.pebble import Pebble

# Whether a host is refused is for the options to say (400, as Kong has it), which no schema knows.
_CONFIGURATION = """
[[operations]]
include-operation-id = ["create", "renew"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "5xx"]
"""


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["with a token", "without"])
def test_schemathesis_finds_nothing(
    proxy: StartProxy, pebble: Pebble, store: Storage, tmp_path: Path, fresh_name: Callable[[], str], token: str
) -> None:
    """Every check of every phase holds, over certificates and a broken record; nothing is ordered by it.

    Without a token only the phases that are the same each time: what follows a login is the same as with one.
    """
    running, api = with_api(proxy, token=token)
    assert [api.create(fresh_name()).status for _ in range(3)] == [201, 201, 201]
    store.put(f"certificates/{fresh_name()}", b"broken")
    running.options["acme_domains"] = ["never.example.test"]
    running.restart()
    before = pebble.seen()
    (tmp_path / "schemathesis.toml").write_text(_CONFIGURATION)

    phases = "examples,coverage,fuzzing,stateful" if token else "examples,coverage"
    words = ["--checks", "all", "--phases", phases, "--max-examples", "8"]
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

    assert done.returncode == 0, done.stdout + done.stderr
    seen = pebble.seen() - before
    assert (seen.orders, seen.validations) == (0, 0)
    assert "Traceback" not in running.log.read_text()
