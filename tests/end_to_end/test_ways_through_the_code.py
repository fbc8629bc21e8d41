"""docs/explanation/ways-through-the-code.md: what it says is called, a real proxy calls, in that order."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.admin import TOKEN, curl
from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble

_TOP = Path(__file__).resolve().parents[2]
_PAGE = (_TOP / "docs/explanation/ways-through-the-code.md").read_text()
_STEP = re.compile(r"^\d+\. `(\S+)` `(\S+)`: ", re.MULTILINE)
_SCRIPT = Path(__file__).with_name("call_record.py")
# A way that passes more files is hard to follow.
_MOST_FILES = 25


def steps(way: str) -> list[str]:
    """Return the steps of a section of the page, as ``call_record.py`` writes calls."""
    section = _PAGE.split(f"\n## {way}\n")[1].split("\n## ")[0]
    return [" ".join(step) for step in _STEP.findall(section)]


class Recorded:
    """A proxy whose calls are recorded, before a CA whose certificates are renewed after some seconds."""

    def __init__(self, running: Mitmdump, ca: Pebble, record: Path, admin_port: int) -> None:
        self._running, self._root, self._record = running, ca.root(), record
        self._admin = f"http://127.0.0.1:{admin_port}/acme"

    def calls_of(self, work: Callable[[], object]) -> list[str]:
        self._begin()
        work()
        return self._begin()

    def visit(self, name: str) -> int:
        """Return the serial number of the certificate that a client is served."""
        return handshake(self._running.https_port, name, self._root).leaf.serial_number

    def post(self, name: str) -> None:
        answer = curl("-H", f"Authorization: Bearer {TOKEN}", "-d", f"host={name}", self._admin)
        assert answer.status == 201, answer

    def _begin(self) -> list[str]:
        """Begin a new record, and return the one before it."""
        self._record.unlink(missing_ok=True)
        os.kill(self._running.pid, signal.SIGUSR1)
        eventually(self._record.exists)
        return self._record.read_text().splitlines()


@pytest.fixture(scope="module")
def short_ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    with Pebble(dns, profiles={"short": 12}) as ca:
        yield ca


@pytest.fixture
def recorded(proxy: StartProxy, short_ca: Pebble, tmp_path: Path) -> Recorded:
    record, port = tmp_path / "calls", free_port()
    running = proxy(
        ca=short_ca,
        start=False,
        acme_renew_before="80%",
        acme_admin_listen=f"127.0.0.1:{port}",
        acme_admin_token=TOKEN,
    )
    running.extra_arguments += ["-s", str(_SCRIPT)]
    running.environment["CALL_RECORD"] = str(record)
    return Recorded(running.start(), short_ca, record, port)


def test_four_ways(recorded: Recorded, fresh_name: Callable[[], str]) -> None:
    name = fresh_name()

    def until_renewed() -> None:
        first = recorded.visit(name)
        eventually(lambda: recorded.visit(name) != first, timeout=30)

    works: dict[str, Callable[[], object]] = {
        "The first handshake for a name": lambda: recorded.visit(name),
        "A handshake for a name in memory": lambda: recorded.visit(name),
        "A renewal": until_renewed,
        "`POST /acme`": lambda: recorded.post(fresh_name()),
    }
    for way, work in works.items():
        _assert_in_order(way, steps(way), recorded.calls_of(work))


def _assert_in_order(way: str, expected: list[str], calls: list[str]) -> None:
    assert len(expected) >= 5
    assert len({step.partition(" ")[0] for step in expected}) <= _MOST_FILES
    following = iter(calls)
    for step in expected:
        assert step in following, f"{way}: {step} is not called, or earlier than the page says"
