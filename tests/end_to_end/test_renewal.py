"""Renewal: on time, unseen by clients, when the CA wants it, and again after it failed or slept."""

import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from acme_storage import Storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from tests.end_to_end.client import Served, eventually, handshake, pem, window
from tests.end_to_end.conftest import StartProxy, change_account
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import DAY, ChallTestSrv, Pebble, can_be_replaced

type FreshName = Callable[[], str]

# Five minutes of a 60-second profile, renewed as the CA suggests:
# ACME_SOAK_SECONDS=300 ACME_SOAK_VALIDITY=60 ACME_SOAK_RENEW_BEFORE=auto
_SOAK = float(os.environ.get("ACME_SOAK_SECONDS", "20"))
_SOAK_VALIDITY = int(os.environ.get("ACME_SOAK_VALIDITY", "12"))
_SOAK_RENEW_BEFORE = os.environ.get("ACME_SOAK_RENEW_BEFORE", "70%")  # a busy disk may take seconds for a write

# First looked at after one to two seconds, and due of itself after some thirteen
_LONGER = 20


def test_clients_never_notice_a_renewal(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """Under load no client sees an expired certificate, and open connections go on over every swap."""
    with Pebble(dns, profiles={"short": _SOAK_VALIDITY}) as ca:
        name, root = fresh_name(), ca.root()
        running = proxy(ca=ca, acme_renew_before=_SOAK_RENEW_BEFORE)
        end = time.monotonic() + _SOAK

        def knock() -> list[Served]:
            served = []
            while time.monotonic() < end:
                before = time.time()
                served.append(handshake(running.https_port, name, root))  # raises where it is not trusted
                assert before < served[-1].leaf.not_valid_after_utc.timestamp()
                time.sleep(0.12)  # some twenty visitors a second in all
            return served

        with ThreadPoolExecutor(4) as pool:
            knocking = [pool.submit(knock) for _ in range(3)]
            talking = pool.submit(_talk, running, name, root, end)
            served = [one for knocked in knocking for one in knocked.result()]

    swaps = len({one.leaf.serial_number for one in served}) - 1
    assert swaps >= _SOAK // _SOAK_VALIDITY - 1
    assert talking.result() >= 0.9 * _SOAK  # about one a second, and none unanswered: that would have raised
    assert "Traceback" not in running.log_text()


def _talk(running: Mitmdump, name: str, root: str, end: float) -> int:
    """Do a request each second on one connection, and return how many were answered."""
    context = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection(("127.0.0.1", running.https_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        connection = http.client.HTTPConnection(name)
        connection.auto_open = False
        connection.sock = secure
        answered = 0
        while time.monotonic() < end:
            connection.request("GET", f"/{answered}")
            assert connection.getresponse().read() == f"hello from upstream /{answered}\n".encode()
            answered += 1
            time.sleep(1)
        return answered


@pytest.mark.parametrize("before", ["25%", "1.5s"])
def test_operator_decides_when_to_renew(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName, before: str
) -> None:
    """``acme_renew_before`` is a part of the life or a duration before its end; the new certificate has a new key."""
    with Pebble(dns, profiles={"short": 7}) as ca:  # a life of 6 seconds, as X.509 counts
        name = fresh_name()
        running = proxy(ca=ca, acme_renew_before=before)
        old = handshake(running.https_port, name, ca.root()).leaf
        new = _next_leaf(running, name, ca.root(), old)

    left = old.not_valid_after_utc.timestamp() - time.time()
    assert 0 < left <= 1.5
    assert new.public_key() != old.public_key()


def test_certificate_that_is_due_as_soon_as_it_comes_is_renewed(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """Where the first look is due when the certificate comes (short lives, CAs that backdate), none is forgotten."""
    with Pebble(dns, profiles={"short": 4}) as ca:
        running = proxy(ca=ca)
        first = {}
        for _ in range(10):
            name = fresh_name()
            handshake(running.https_port, name, ca.root())
            first[name] = store.get(f"certificates/{name}")

        eventually(lambda: not [name for name in first if store.get(f"certificates/{name}") == first[name]])


def test_ca_can_call_for_a_renewal(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """A renewal window in the past (RFC 9773) renews at the first look, and the order says what it replaces.

    One line in the log says so, and where the CA explains it.
    """
    with Pebble(dns, profiles={"short": _LONGER}) as ca:
        name = fresh_name()
        running = proxy(ca=ca)
        old = handshake(running.https_port, name, ca.root()).leaf
        ca.set_renewal_info(pem(old), window(-7_200, -3_600, "https://ca.test/incident"))

        _next_leaf(running, name, ca.root(), old)
        (line,) = (line for line in running.log_text().splitlines() if "so it is replaced at once" in line)
        assert name in line
        assert "https://ca.test/incident" in line

        assert old.not_valid_after_utc.timestamp() - time.time() > _LONGER / 2
        assert ca.log_text().count("is a replacement of") == int(can_be_replaced(old))


def test_explanation_without_end_is_no_page(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """What explains a window is the CA's text: neither too long to be kept, nor lines of its own in the log."""
    with Pebble(dns, profiles={"short": _LONGER}) as ca:
        name = fresh_name()
        running = proxy(ca=ca)
        old = handshake(running.https_port, name, ca.root()).leaf
        explanation = f"https://ca.test/\x1b[2J\n{name}: forged {'x' * 70_000}"
        ca.set_renewal_info(pem(old), window(-7_200, -3_600, explanation))

        _next_leaf(running, name, ca.root(), old)

        (line,) = (line for line in running.log_text().splitlines() if "forged" in line)
        assert f"https://ca.test/?[2J {name}: forged xxx" in line
        assert len(line) < 1_000
        assert "Traceback" not in running.log_text()


def test_certificate_that_was_replaced_already_is_renewed(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """A CA that has seen the certificate replaced (409), as after a restored backup, gets the order without that."""
    with Pebble(dns, profiles={"short": _LONGER}) as ca:
        name = fresh_name()
        running = proxy(ca=ca)
        old = handshake(running.https_port, name, ca.root()).leaf
        backup = store.get(f"certificates/{name}")
        ca.set_renewal_info(pem(old), window(-7_200, -3_600))
        _next_leaf(running, name, ca.root(), old)
        eventually(lambda: store.get(f"certificates/{name}") != backup)
        running.stop()
        assert backup
        store.put(f"certificates/{name}", backup)
        before = ca.seen()
        _look_at_the_start(store, name)

        running.start()

        _next_leaf(running, name, ca.root(), old)
        assert (ca.seen() - before).by_path["/order-plz"] == 2
        assert ca.log_text().count("is a replacement of") == int(can_be_replaced(old))
    assert "no certificate" not in running.log_text()


def test_certificate_of_another_account_is_renewed(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """A CA that lets only the account that ordered a certificate replace it gets the order without that."""
    with Pebble(dns, profiles={"short": _LONGER}) as ca:
        name = fresh_name()
        running = proxy(ca=ca)
        old = handshake(running.https_port, name, ca.root()).leaf
        running.stop()
        (account,) = store.keys("accounts/")
        store.delete(account)
        ca.set_renewal_info(pem(old), window(-7_200, -3_600))
        before = ca.seen()
        _look_at_the_start(store, name)

        running.start()

        _next_leaf(running, name, ca.root(), old)
        assert (ca.seen() - before).by_path["/order-plz"] == 2
        assert ca.log_text().count("is a replacement of") == 0
    assert "no certificate" not in running.log_text()


def test_certificate_that_the_ca_has_lost_is_renewed(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """A CA that fails (500) over what an order is to replace gets the order without that, and no backoff follows."""
    with Pebble(dns) as ca:
        name = fresh_name()
        issuer_key = x509.load_pem_x509_certificate(ca.intermediate().encode()).public_key()
        assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
        due = make_certificate([name], now=int(time.time()) - 80 * DAY, ca=ca.directory, issuer_key=issuer_key)
        store.put(f"certificates/{name}", due.to_record())
        _look_at_the_start(store, name)

        running = proxy(ca=ca)

        eventually(lambda: store.get(f"certificates/{name}") != due.to_record())
        handshake(running.https_port, name, ca.root())
        seen = ca.seen()
        assert (seen.orders, seen.by_path["/order-plz"]) == (1, 2)
    assert "no certificate" not in running.log_text()


def test_nonsense_in_renewal_information_does_no_harm(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """Whatever the CA answers about a renewal window, the certificate stays, and is looked at again later."""
    nonsense = ["", "{nonsense", "null", "[]", '{"suggestedWindow": 7}', window(-3_600, -7_200), window(0, None)]
    nonsense += ["[" * 50_000, '{"suggestedWindow": {"start": "0001-01-01T00:00", "end": "9999-12-31T23:59"}}']
    with Pebble(dns) as ca:
        names = [fresh_name() for _ in nonsense]
        running = proxy(ca=ca)
        old = {name: handshake(running.https_port, name, ca.root()).leaf for name in names}
        running.stop()
        for name, reply in zip(names, nonsense, strict=True):
            ca.set_renewal_info(pem(old[name]), reply)
            _look_at_the_start(store, name)

        running.start()

        eventually(lambda: not list(_due(store)))
        assert {name: handshake(running.https_port, name, ca.root()).leaf for name in names} == old
        assert ca.seen().by_path["/draft-ietf-acme-ari-03/renewalInfo/"] == len(names)
        assert ca.seen().certificates == len(names)
    assert "Traceback" not in running.log_text()


def test_failed_renewal_keeps_the_old_certificate(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """While a renewal fails the old certificate is served and a warning comes before its end; then it recovers."""
    with Pebble(dns, profiles={"short": 13}) as ca:
        name = fresh_name()
        running = proxy(ca=ca, acme_renew_before="50%", acme_fail_backoff="1s", termlog_verbosity="warn")
        old = handshake(running.https_port, name, ca.root()).leaf
        change_account(running, store)
        dns.add_a(name, "127.0.0.2")  # where nothing listens
        try:
            eventually(lambda: "not renewed, and the certificate expires in" in running.log_text(), timeout=14)
            assert f"{name}: no certificate: " in running.log_text()
            assert handshake(running.https_port, name, ca.root()).leaf == old
        finally:
            dns.clear_a(name)
        _next_leaf(running, name, ca.root(), old)
        assert time.time() < old.not_valid_after_utc.timestamp()


def test_what_became_due_while_the_proxy_was_down_is_renewed_at_the_start(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """A stored certificate that is due is renewed when the proxy starts, without any client."""
    with Pebble(dns, profiles={"short": 7}) as ca:
        running = proxy(ca=ca, acme_renew_before="50%")
        handshake(running.https_port, fresh_name(), ca.root())
        running.stop()
        time.sleep(3)
        assert ca.seen().certificates == 1

        running.start()

        eventually(lambda: ca.seen().certificates == 2, timeout=3)


def test_what_expired_while_the_proxy_was_down_is_not_served(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """The first client after a long pause gets a new certificate, not the stored one that has expired."""
    with Pebble(dns, profiles={"short": 3}) as ca:
        name = fresh_name()
        running = proxy(ca=ca)
        old = handshake(running.https_port, name, ca.root()).leaf
        running.stop()
        time.sleep(max(old.not_valid_after_utc.timestamp() + 1 - time.time(), 0))

        running.start()

        assert handshake(running.https_port, name, ca.root()).leaf != old


def _look_at_the_start(store: Storage, name: str) -> None:
    """Bring the first look forward, which would come after hours."""
    RenewalSchedule(store).add(ScheduledCheck(ServerName(name), time.time() - 1))


def _due(store: Storage) -> list[ScheduledCheck]:
    now = time.time()
    return [entry for entry in RenewalSchedule(store).due_by(now) if entry.at <= now]


def _next_leaf(running: Mitmdump, name: str, root: str, old: x509.Certificate) -> x509.Certificate:
    """What is served instead of ``old``, as soon as it is; every handshake on the way is trusted."""
    leaves = [old]

    def changed() -> bool:
        leaves.append(handshake(running.https_port, name, root).leaf)
        return leaves[-1] != old

    eventually(changed, timeout=12)
    return leaves[-1]
