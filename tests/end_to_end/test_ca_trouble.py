"""The CA is down, silent or talks nonsense: what is there is served, the log says why once, and it ends by itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.client import eventually, handshake, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble

type FreshName = Callable[[], str]


@pytest.fixture
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    with Pebble(dns) as server:
        yield server


@pytest.fixture
def chaos(ca: Pebble) -> Iterator[Chaos]:
    """What lies between the proxy and the CA. Its junk is spoken with the CA's own certificate."""
    with Chaos(ca.port, tls=ca.ca.server_context()) as between:
        yield between


def _answers_html(chaos: Chaos) -> None:
    chaos.answer_junk()
    chaos.reset()


def _resets(chaos: Chaos) -> None:
    chaos.cut_after(0)
    chaos.reset()


def _cuts_replies(chaos: Chaos) -> None:
    chaos.cut_after(_MIDDLE_OF_THE_FIRST_REPLY)
    chaos.reset()


# Pebble's side of a TLS handshake takes under 1,000 bytes, and its first reply over 270 (measured)
_MIDDLE_OF_THE_FIRST_REPLY = 1_200


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (_answers_html, "answered HTTP 502 with text/html, which is not ACME"),
        (_resets, "cannot be reached: no connection"),
        (Chaos.refuse, "cannot be reached: no connection"),
        (_cuts_replies, "cannot be reached: "),
    ],
    ids=["html", "reset", "refused", "cut"],
)
def test_trouble_is_one_sentence_and_ends_with_its_cause(
    proxy: StartProxy,
    ca: Pebble,
    chaos: Chaos,
    fresh_name: FreshName,
    trouble: Callable[[Chaos], None],
    sentence: str,
) -> None:
    """While the CA is in trouble, known names are served and the log has one line; healed, the next visitor is too."""
    known, unknown = fresh_name(), fresh_name()
    running = _behind(chaos, proxy, ca, acme_fail_backoff="1s", acme_handshake_wait=3)
    first = handshake(running.https_port, known, ca.root())
    trouble(chaos)

    assert not is_trusted(running.https_port, unknown, ca.root())
    eventually(lambda: "no certificate: " in running.log_text())
    assert handshake(running.https_port, known, ca.root()).leaf == first.leaf

    said = [line for line in running.log_text().splitlines() if "no certificate: " in line]
    assert len(said) == 1
    assert sentence in said[0]
    assert "Traceback" not in running.log_text()
    chaos.heal()
    eventually(lambda: is_trusted(running.https_port, unknown, ca.root()))


def test_ca_that_is_down_is_not_asked_by_every_visitor(
    proxy: StartProxy, ca: Pebble, chaos: Chaos, fresh_name: FreshName
) -> None:
    """100 visitors on 100 names cost a dead CA one question, or one for each of the four orders that begin at once."""
    running = _behind(chaos, proxy, ca)
    chaos.upstream = free_port()  # accepted, for the count, and reset

    for _ in range(2):
        _visit_in_vain(running, [fresh_name() for _ in range(50)], ca.root())

    assert 1 <= chaos.connections <= 4
    assert running.log_text().count("no certificate: ") == 1


def test_ca_that_dies_under_orders_is_not_asked_by_each_of_them(
    proxy: StartProxy, ca: Pebble, chaos: Chaos, fresh_name: FreshName
) -> None:
    """Orders that wait for their turn when the CA goes away end with the first failure, and do not try themselves."""
    running = _behind(chaos, proxy, ca)
    handshake(running.https_port, fresh_name(), ca.root())
    chaos.blackhole()
    with ThreadPoolExecutor(1) as pool:
        visits = pool.submit(_visit_in_vain, running, [fresh_name() for _ in range(50)], ca.root())
        time.sleep(1)  # by now all of them are under way
        before = chaos.connections
        chaos.upstream = free_port()
        chaos.reset()
        chaos.heal()
        visits.result()

    assert chaos.connections - before <= 8  # four threads, and one repetition where a kept connection was lost
    assert running.log_text().count("no certificate: ") == 1


def _visit_in_vain(running: Mitmdump, names: Sequence[str], root: str) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        assert not any(pool.map(lambda name: is_trusted(running.https_port, name, root), names))


def test_silent_ca_holds_no_handshake_longer_than_allowed(
    proxy: StartProxy, ca: Pebble, chaos: Chaos, fresh_name: FreshName
) -> None:
    """A CA that says nothing holds a handshake as long as the option says, and finishes the order when it wakes."""
    known, name = fresh_name(), fresh_name()
    running = _behind(chaos, proxy, ca, acme_handshake_wait=1)
    handshake(running.https_port, known, ca.root())
    before = ca.seen()
    chaos.blackhole()

    begun = time.monotonic()
    assert not is_trusted(running.https_port, name, ca.root())
    assert 0.9 < time.monotonic() - begun < 10
    assert is_trusted(running.https_port, known, ca.root())

    chaos.heal()
    eventually(lambda: is_trusted(running.https_port, name, ca.root()))
    assert (ca.seen() - before).orders == 1


def test_untrusted_ca_says_what_to_do(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """Without ``acme_ca_bundle`` a private CA's own HTTPS is not trusted, and the log names the option."""
    running = proxy(acme_ca_bundle="")

    assert not is_trusted(running.https_port, fresh_name(), root)

    assert running.log.read_text().count("no certificate: ") == 1
    assert "set acme_ca_bundle to its root" in running.log.read_text()


def test_proxy_of_the_environment_is_not_used(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """HTTPS_PROXY, which may be this very proxy, does not come between the addon and the CA."""
    running = proxy(start=False)
    nowhere = f"http://127.0.0.1:{free_port()}"
    running.environment |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"), nowhere)
    running.environment |= {"NO_PROXY": "", "no_proxy": ""}
    running.start()

    assert is_trusted(running.https_port, fresh_name(), root)


def _behind(chaos: Chaos, proxy: StartProxy, ca: Pebble, **options: Option) -> Mitmdump:
    running = proxy(ca=ca, start=False)
    running.options |= {"acme_ca": [f"https://localhost:{chaos.port}/dir"], **options}
    return running.start()
