"""The main task: a name that was never asked for gets a trusted certificate in its first handshake."""

import ssl
from collections.abc import Callable

import pytest

from tests.end_to_end.client import UNRECOGNIZED_NAME, alert_for, get, handshake, handshakes
from tests.end_to_end.conftest import StartProxy
from tests.servers.pebble import ChallTestSrv, Pebble


def test_unknown_name_is_trusted_at_once(proxy: StartProxy, root: str, fresh_name: Callable[[], str]) -> None:
    """The first client for a name gets a certificate from the CA, and its request reaches the upstream."""
    name = fresh_name()
    running = proxy()

    served = handshake(running.https_port, name, root)

    assert served.names == [name]
    assert "hello from upstream /path" in get(running.https_port, name, root, "/path")


def test_hundred_clients_on_one_cold_name_cost_one_order(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: Callable[[], str]
) -> None:
    """Any number of clients that ask for a new name at once share one order, and all are served."""
    running = proxy()
    before = pebble.seen()

    served = handshakes(running.https_port, [fresh_name()] * 100, root)

    assert len({s.leaf.serial_number for s in served}) == 1
    assert (pebble.seen() - before).orders == 1


def test_name_that_is_not_allowed_is_refused(proxy: StartProxy, pebble: Pebble, root: str) -> None:
    """A name that no option allows gets the alert unrecognized_name: no order, and one log line in all."""
    running = proxy()
    before = pebble.seen()

    for n in range(10):
        assert alert_for(running.https_port, f"www{n}.elsewhere.test") == UNRECOGNIZED_NAME

    assert (pebble.seen() - before).requests == 0
    lines = [line for line in running.log.read_text().splitlines() if "elsewhere.test" in line or "handshake" in line]
    assert len(lines) == 1, lines


def test_failing_name_is_ordered_once_in_twenty_visits(
    proxy: StartProxy, pebble: Pebble, dns: ChallTestSrv, root: str, fresh_name: Callable[[], str]
) -> None:
    """After a failed validation a name is not ordered again until its backoff ends, even over a restart."""
    name = fresh_name()
    dns.set_servfail(name)
    running = proxy()
    before = pebble.seen()

    for visit in range(20):
        if visit == 10:
            running.restart()
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(running.https_port, name, root)

    assert (pebble.seen() - before).orders == 1
