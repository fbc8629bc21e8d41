"""Two CAs, of which the first has some trouble: the second serves in time, and the first is left alone and comes back.

The first is behind a front door that can answer for it, or behind a line that can go dead.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.admin import Api
from tests.end_to_end.client import eventually, handshake, is_trusted
from tests.end_to_end.conftest import StartProxy, default_options
from tests.servers.base import free_port
from tests.servers.chaos import Chaos
from tests.servers.forked import Forked
from tests.servers.gate import Gate
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_HANDSHAKE_WAIT = 15.0  # acme_handshake_wait unless it is set
_RETRY_AFTER = 2


@dataclass(frozen=True)
class Pair:
    """A proxy with its admin API before two CAs, the first behind a gate."""

    running: Mitmdump
    api: Api
    gate: Gate
    first: Pebble
    second: Pebble

    def by_first(self, name: str) -> bool:
        """Say whether the name is served by the first CA; by the second it must be if not."""
        return _is_by(self.running, name, self.first, self.second)

    def by_second(self, name: str) -> bool:
        """Say whether the name is served by the second CA, before a handshake's wait would have ended."""
        return _in_time(self.running, name, self.second)


@pytest.fixture(scope="module")
def shared(dns: ChallTestSrv, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair for the whole module."""
    place, api = tmp_path_factory.mktemp("failover"), Api(free_port(), token="")
    second = Pebble(dns)
    first = Pebble(dns, http_port=second.http_port)
    with first, second, Gate(first, place / "gate") as gate:
        options = default_options(second, place / "store") | {
            "acme_ca": [_entry(gate.directory, gate.ca_bundle), second.directory],
            "acme_fail_backoff": "1s",
            "acme_admin_listen": f"127.0.0.1:{api.port}",
        }
        with Forked(upstream.url, options, http_port=second.http_port) as running:
            yield Pair(running, api, gate, first, second)


@pytest.fixture
def pair(shared: Pair, fresh_name: FreshName) -> Iterator[Pair]:
    """The pair, whose first CA is well, and known to the proxy."""
    eventually(lambda: shared.by_first(fresh_name()))
    yield shared
    shared.gate.open()


@pytest.fixture
def first(dns: ChallTestSrv, pebble: Pebble) -> Iterator[Pebble]:
    """The preferred CA of a test's own; the session's is the second."""
    with Pebble(dns, http_port=pebble.http_port) as server:
        yield server


def test_first_is_killed(proxy: StartProxy, first: Pebble, pebble: Pebble, fresh_name: FreshName) -> None:
    """New names come from the second, renewals too; the overview and the metrics show both; and then all is as it was.

    The log says when it goes over and when it goes back.
    """
    api = Api(free_port(), token="")
    running = _with(proxy, first.directory, first, pebble, acme_admin_listen=f"127.0.0.1:{api.port}")
    known = fresh_name()
    assert _in_time(running, known, first)

    first.kill()
    name = fresh_name()
    assert _in_time(running, name, pebble)
    assert api("POST", f"/acme/certificates/{known}/renew", json_body={}).status == 200
    assert _in_time(running, known, pebble)

    said = f"{first.directory} cannot be reached: no connection; trying {pebble.directory}, and {first.directory} again"
    assert f"{name}: {said}" in running.log_text()
    assert "no certificate: " not in running.log_text()
    cas = json.loads(api("GET", "/acme/status").text)["cas"]
    assert [(ca["name"], bool(ca["account"])) for ca in cas] == [(first.directory, True), (pebble.directory, True)]
    metrics = api("GET", "/metrics").text
    for ca in (first, pebble):
        assert f'mitmproxy_acme_orders_total{{ca="{ca.directory}",result="success"}}' in metrics
        assert f'mitmproxy_acme_ca_backing_off{{ca="{ca.directory}"}}' in metrics

    first.start()
    eventually(lambda: _is_by(running, fresh_name(), first, pebble), timeout=15)
    assert api("POST", f"/acme/certificates/{known}/renew", json_body={}).status == 200
    assert _in_time(running, known, first)
    assert running.log_text().count(f"{first.directory} issues again") == 1


def test_first_is_silent(proxy: StartProxy, first: Pebble, pebble: Pebble, fresh_name: FreshName) -> None:
    """What waits in a handshake is served by the second before the wait ends, whether the first was known or not."""
    with Chaos(first.port) as line:
        line.blackhole()
        running = _with(proxy, f"https://localhost:{line.port}/dir", first, pebble)
        assert _in_time(running, fresh_name(), pebble)
        line.heal()
        eventually(lambda: _is_by(running, fresh_name(), first, pebble))

        line.blackhole()
        assert _in_time(running, fresh_name(), pebble)
        asked = line.connections
        assert _in_time(running, fresh_name(), pebble)

        assert line.connections == asked
        assert running.log_text().count("cannot be reached: it does not answer in time; trying ") == 2


@pytest.mark.parametrize(
    ("path", "status", "body", "headers"),
    [
        ("/order-plz", 500, "serverInternal", {}),
        ("/order-plz", 503, "serverInternal", {"Retry_After": f"{_RETRY_AFTER}"}),
        ("/order-plz", 429, "slow down", {"Content_Type": "text/plain", "Retry_After": f"{_RETRY_AFTER}"}),
        ("/finalize-order/", 502, "<h1>Bad Gateway</h1>", {"Content_Type": "text/html"}),
    ],
    ids=["500", "503", "429", "502 in the middle"],
)
def test_first_fails(
    pair: Pair, fresh_name: FreshName, path: str, status: int, body: str, headers: dict[str, str]
) -> None:
    """The second serves this name and every other, and before its Retry-After the first hears nothing at all."""
    problem = _problem(body, status) if body == "serverInternal" else body.encode()
    wait = _RETRY_AFTER if "Retry_After" in headers else 1
    before = len(pair.gate.asked)
    pair.gate.answer(path, status, problem, **{"Content_Type": "application/problem+json"} | headers)

    name = fresh_name()
    assert pair.by_second(name)
    failed = next(asked for asked in pair.gate.asked[before:] if asked.path.startswith(path))
    for _ in range(2):
        assert pair.by_second(fresh_name())
    pair.gate.open()

    eventually(lambda: pair.by_first(fresh_name()))
    again = pair.gate.asked[pair.gate.asked.index(failed) + 1]
    assert again.at - failed.at >= wait
    assert f"{name}: no certificate: " not in pair.running.log_text()


def test_first_is_rate_limited_for_a_name(pair: Pair, fresh_name: FreshName) -> None:
    """The name's orders go to the second until the Retry-After ends; the first is asked for every other."""
    name, gate = fresh_name(), pair.gate
    limited = _problem("rateLimited", 429)
    gate.answer("/order-plz", 429, limited, Content_Type="application/problem+json", Retry_After=f"{_RETRY_AFTER}")
    assert pair.by_second(name)
    failed = gate.asked[-1]
    gate.open()

    assert pair.by_first(fresh_name())
    asked = len(gate.asked)
    assert pair.api("DELETE", f"/acme/certificates/{name}?reason=none").status == 204
    # On a machine that is so slow the wait is over meanwhile; that it was kept is seen below.
    assert pair.by_second(name) or time.monotonic() - failed.at >= _RETRY_AFTER
    assert json.loads(pair.api("GET", "/acme/status").text)["failing"] == []

    def is_by_first() -> bool:
        pair.api("DELETE", f"/acme/certificates/{name}?reason=none")
        return pair.by_first(name)

    eventually(is_by_first)
    assert gate.asked[asked].at - failed.at >= _RETRY_AFTER


def test_first_is_barred_by_caa(pair: Pair, fresh_name: FreshName) -> None:
    """The name may have its certificate from the second; the next name is the first's."""
    pair.gate.answer("/finalize-order/", 403, _problem("caa", 403), Content_Type="application/problem+json")
    assert pair.by_second(fresh_name())
    pair.gate.open()
    assert pair.by_first(fresh_name())


def test_name_that_cannot_be_validated_is_not_the_cas_fault(
    pair: Pair, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """The second is not asked for it, and the first goes on for the others."""
    name, before = fresh_name(), pair.second.seen()
    dns.add_a(name, "127.0.0.2")  # where nothing listens
    try:
        assert not is_trusted(pair.running.https_port, name, pair.first.root() + pair.second.root())
    finally:
        dns.clear_a(name)
    assert (pair.second.seen() - before).requests == 0
    assert f"{name}: no certificate: {pair.gate.directory} could not validate {name}" in pair.running.log_text()
    assert pair.by_first(fresh_name())


def test_each_has_its_own_binding(proxy: StartProxy, dns: ChallTestSrv, pebble: Pebble, fresh_name: FreshName) -> None:
    """Accounts at two CAs that demand external account binding, each with what its console gave, and with its MAC."""
    # as long as the longest hash, which is the least that such a key must be (RFC 7518 section 3.2)
    keys = {kid: base64.urlsafe_b64encode(64 * kid[-1:].encode()).decode().rstrip("=") for kid in ("kid-a", "kid-b")}
    a, b = (Pebble(dns, http_port=pebble.http_port, eab={kid: key}) for kid, key in keys.items())
    with a, b:
        bindings = [f";eab_kid={kid};eab_hmac_key={key}" for kid, key in keys.items()]
        bindings[1] += ";eab_alg=HS512"
        entries = [_entry(ca.directory, ca.ca_bundle) + own for ca, own in zip((a, b), bindings, strict=True)]
        running = proxy(acme_ca=entries)
        assert _in_time(running, fresh_name(), a)
        a.kill()
        assert _in_time(running, fresh_name(), b)


def _entry(directory: str, bundle: Path) -> str:
    return f"{directory};ca_bundle={bundle}"


def _with(proxy: StartProxy, directory: str, door: Pebble, second: Pebble, **options: Option) -> Mitmdump:
    """Start a proxy before a CA of that directory, whose certificate is the door's, and a second one."""
    entries = [_entry(directory, door.ca_bundle), second.directory]
    running = proxy(ca=second, start=False)
    running.options |= {"acme_ca": entries, "acme_fail_backoff": "1s", **options}
    return running.start()


def _problem(type: str, status: int) -> bytes:
    return json.dumps({"type": f"urn:ietf:params:acme:error:{type}", "detail": "for a test", "status": status}).encode()


def _in_time(running: Mitmdump, name: str, ca: Pebble) -> bool:
    """Say whether the name is served by that CA, before a handshake's wait would have ended."""
    begun = time.monotonic()
    return is_trusted(running.https_port, name, ca.root()) and time.monotonic() - begun < _HANDSHAKE_WAIT


def _is_by(running: Mitmdump, name: str, wanted: Pebble, other: Pebble) -> bool:
    """Say whether the name is served by one CA; by the other it must be if not."""
    if is_trusted(running.https_port, name, wanted.root()):
        return True
    handshake(running.https_port, name, other.root())
    return False
