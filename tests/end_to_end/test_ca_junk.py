"""A real CA behind a door that says nonsense in its place: one sentence, no fault of ours, and no second order."""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import BackingOff, IssuanceError, IssuerUnavailable, NameRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from tests.servers.gate import Gate
from tests.servers.pebble import Pebble

type MakeManager = Callable[..., Manager]

_A, _B = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "ab")
_PLACES = ("/dir", "/sign-me-up", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/")
_PROBLEM = {"Content_Type": "application/problem+json"}
_ERROR = "urn:ietf:params:acme:error:"
_DEEP = b"[" * 200_000


@pytest.fixture
def gate(lenient_ca: Pebble, tmp_path: Path) -> Iterator[Gate]:
    with Gate(lenient_ca, tmp_path / "gate") as door:
        yield door


@pytest.fixture
async def make_manager(gate: Gate) -> AsyncIterator[MakeManager]:
    """Make managers before the door; options as keywords, and ``now`` for a clock of its own."""
    async with AsyncExitStack() as stack:

        def make(*, now: Callable[[], float] = time.time, **options: Any) -> Manager:
            defaults = {"acme_ca": [gate.directory], "acme_ca_bundle": str(gate.ca_bundle), "acme_tos_accepted": True}
            config = Config.from_options({"acme_domains": ["**.example.test"]} | defaults | options)
            manager = Manager(config, Memory(), now=now)
            stack.push_async_callback(manager.close)
            return manager

        yield make


async def _fails_once(manager: Manager, gate: Gate, caplog: pytest.LogCaptureFixture) -> IssuanceError:
    """Order in vain, and once more; return what the first failed with. The log has one sentence, and no traceback."""
    with pytest.raises(IssuanceError) as failed:
        await manager.obtain(_A)
    asked = len(gate.asked)
    with pytest.raises(BackingOff):
        await manager.obtain(_A)
    assert len(gate.asked) == asked
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert caplog.text.count("no certificate: ") == 1
    return failed.value


@pytest.mark.parametrize("place", _PLACES)
async def test_json_without_end(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Nested deeper than any parser goes, wherever it comes."""
    gate.answer(place, 200, _DEEP, Content_Type="application/json")
    assert isinstance(await _fails_once(make_manager(), gate, caplog), IssuerUnavailable)


@pytest.mark.parametrize("place", _PLACES)
async def test_problem_without_end(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """The same in the place of a problem document."""
    gate.answer(place, 400, _DEEP, **_PROBLEM)
    assert isinstance(await _fails_once(make_manager(), gate, caplog), IssuerUnavailable)


async def test_problem_whose_texts_are_none(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands there is said as it is."""
    subproblems = [{"type": f"{_ERROR}dns", "detail": [7], "identifier": {"type": "dns", "value": 4}}]
    problem = {"type": f"{_ERROR}malformed", "detail": {"no": "text"}, "subproblems": subproblems}
    gate.answer("/order-plz", 400, json.dumps(problem).encode(), **_PROBLEM)
    error = await _fails_once(make_manager(), gate, caplog)
    assert isinstance(error, NameRefused)
    assert error.problem is not None
    assert error.problem.identifiers == ("4",)


@pytest.mark.parametrize(
    "again", ["Thu, 26 Nov 2026 02:00:00 -0000", f"Thu, 26 Nov {'9' * 30} 02:00:00 GMT"], ids=["no zone", "no year"]
)
async def test_date_that_is_none(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture, again: str
) -> None:
    """A Retry-After that cannot be compared, or that no calendar has, counts as none."""
    problem = json.dumps({"type": f"{_ERROR}serverInternal"}).encode()
    dates = {"Retry_After": again, "Date": "Thu, 26 Nov 2026 01:00:00 GMT"}
    gate.answer("/order-plz", 503, problem, **_PROBLEM, **dates)
    error = await _fails_once(make_manager(), gate, caplog)
    assert isinstance(error, IssuerUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("/order-plz", b'"authorizations":', b'"approvals":'),
        ("/order-plz", b'"finalize":', b'"end":'),
        ("/order-plz", b'"authorizations": [', b'"authorizations": [17, '),
        ("/authZ/", b'"challenges":', b'"games":'),
        ("/authZ/", b'"identifier":', b'"name":'),
        ("/authZ/", b"a.example.test", b"../a example"),
    ],
    ids=lambda part: part.decode() if isinstance(part, bytes) else part,
)
async def test_field_that_is_missing(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture, place: str, old: bytes, new: bytes
) -> None:
    """Or that is something else than RFC 8555 section 7.1 says."""
    gate.change(place, old, new)
    error = await _fails_once(make_manager(acme_challenges=["tls-alpn-01"]), gate, caplog)
    assert isinstance(error, IssuerUnavailable)
    assert "is not ACME" in str(error)


async def test_certificate_that_has_ended(
    make_manager: MakeManager, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """By the clock of this machine, which may be what is wrong: no name is ordered for each visitor then."""
    manager = make_manager(now=lambda: time.time() + 91 * DAY)
    error = await _fails_once(manager, gate, caplog)
    assert isinstance(error, IssuerUnavailable)
    assert "the clock of this machine is wrong" in str(error)
    with pytest.raises(BackingOff):
        await manager.obtain(_B)


async def test_chain_without_end(make_manager: MakeManager, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred certificates: no client follows them, and no storage takes them."""
    with Pebble(always_valid=True, chain_length=100) as ca, Gate(ca, tmp_path / "long") as gate:
        manager = make_manager(acme_ca=[gate.directory], acme_ca_bundle=str(gate.ca_bundle))
        error = await _fails_once(manager, gate, caplog)
    assert "has 100 intermediates; clients follow at most 10" in str(error)
