"""A CA that means no good, before a real proxy: visitors are refused at once, nothing is led astray, and it ends."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.client import eventually, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.hostile import ERROR, Canary, HostileCa, Reply


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[HostileCa]:
    with HostileCa(tmp_path / "hostile") as server:
        yield server


def test_proxy_survives_it(proxy: StartProxy, ca: HostileCa, fresh_name: Callable[[], str]) -> None:
    """Each trick costs one order and some requests; the log has one line of it, and the next certificate comes."""

    def leads_astray(reply: Reply) -> None:
        reply.body["authorizations"] = [f"{canary.url}/{number}" for number in range(len(reply.body["authorizations"]))]

    def has_no_end(reply: Reply) -> None:
        reply.body["authorizations"] *= 10_000

    def shouts(reply: Reply) -> None:
        reply.status, reply.body = 400, {"type": ERROR + 3_000 * "\x1b[2J\r\n[00:00:00.000] forged "}

    def is_invalid(reply: Reply) -> None:
        reply.body["status"] = "invalid"

    with Canary(ca.context) as canary:
        running = proxy(ca=ca, acme_fail_backoff="1s")
        for trick in (leads_astray, has_no_end, shouts, is_invalid):
            name = fresh_name()
            ca.heal()
            ca.change("order", trick)
            assert not is_trusted(running.https_port, name, ca.root())
            assert not is_trusted(running.https_port, name, ca.root())  # it is backing off
            assert (ca.asked["order"], ca.asked["authorization"]) == (1, 0)
            ca.heal()
            eventually(partial(is_trusted, running.https_port, name, ca.root()), timeout=10)
        assert canary.requests == []
    log = running.log_text()
    assert "Traceback" not in log
    assert "\n[00:00:00.000] forged" not in log
    assert log.count(": no certificate: ") == 4
    assert max(map(len, log.splitlines())) < 1_000
