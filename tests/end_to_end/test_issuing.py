"""Issuing: what an order costs, what the operator can choose, and what CAs do that textbooks do not mention."""

import base64
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import josepy as jose
import pytest
from acme import client as acme_client
from acme import errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acme_storage import Storage
from tests.end_to_end.client import eventually, handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import DAY, ChallTestSrv, Pebble

type FreshName = Callable[[], str]

# newOrder, authorization, challenge, authorization again, finalize, order, certificate
_SEVEN = {"/order-plz": 1, "/authZ/": 2, "/chalZ/": 1, "/finalize-order/": 1, "/my-order/": 1, "/certZ/": 1}


def test_certificate_costs_seven_requests(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """Once account and nonces are there, a certificate costs 7 requests; a busy machine may look again."""
    with Pebble(dns) as ca:
        running = proxy(ca=ca)
        handshake(running.https_port, fresh_name(), ca.root())
        costs = []
        for _ in range(10):
            before = ca.seen()
            handshake(running.https_port, fresh_name(), ca.root())
            costs.append((ca.seen() - before).by_path)

    looks = {"/authZ/", "/my-order/"}
    assert [{path: count for path, count in cost.items() if path not in looks} for cost in costs] == [
        {path: count for path, count in _SEVEN.items() if path not in looks}
    ] * 10
    assert min(cost.total() for cost in costs) == 7


def test_no_name_is_lost_when_every_second_nonce_is_refused(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """60 names at once get their certificates from a CA that refuses half of all good nonces."""
    with Pebble(dns, nonce_reject=50) as ca:
        names = [fresh_name() for _ in range(60)]
        running = proxy(ca=ca, acme_handshake_wait=60)

        served = handshakes(running.https_port, names, ca.root(), timeout=70)

        assert [s.names for s in served] == [[name] for name in names]
        assert ca.seen().certificates == 60


def test_account_is_registered_anew_after_the_ca_forgot_it(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, fresh_name: FreshName
) -> None:
    """A CA that lost its accounts and nonces in a restart gets the same account key again, once, and issues."""
    with Pebble(dns) as ca:
        running = proxy(ca=ca)
        handshakes(running.https_port, [fresh_name() for _ in range(4)], ca.root())
        first = _account(store)
        ca.restart()

        handshakes(running.https_port, [fresh_name() for _ in range(8)], ca.root())

        second = _account(store)
        assert second["key"] == first["key"] != ""
        assert second["uri"] != first["uri"]
        assert ca.seen().by_path["/sign-me-up"] == 1


def test_slow_ca_is_asked_as_seldom_as_it_wants(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """Pebble with its default sleeps issues; after four quick looks its Retry-After of 3 and 5 seconds is kept."""
    with Pebble(dns, nosleep=False, retry_after=(3, 5)) as ca:
        running = proxy(ca=ca, acme_handshake_wait=60)

        slowest = 0.0
        for _ in range(3):  # Pebble draws its sleeps, and may draw none
            before = ca.seen()
            served = handshakes(running.https_port, [fresh_name() for _ in range(4)], ca.root())
            looks = (ca.seen() - before).by_path
            slowest = max(s.milliseconds for s in served) / 1000
            # the first one finds the challenges
            assert looks["/authZ/"] <= sum(1 + 4 + math.ceil(s.milliseconds / 3000) for s in served)
            assert looks["/my-order/"] <= sum(4 + math.ceil(s.milliseconds / 5000) for s in served)
            if slowest > 3:
                break
        assert slowest > 3, "Pebble never slept"


_MAC_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
_OTHER_KEY = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")


def test_external_account_binding_opens_the_account(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """A CA that demands external account binding takes the key identifier and the key of the options."""
    with Pebble(dns, eab={"kid-1": _MAC_KEY}) as ca:
        running = proxy(ca=ca, start=False, acme_eab_kid="kid-1", acme_eab_hmac_key="env:EAB_KEY")
        running.environment["EAB_KEY"] = _MAC_KEY
        running.start()

        assert is_trusted(running.https_port, fresh_name(), ca.root())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"acme_eab_kid": "kid-1", "acme_eab_hmac_key": "env:EAB_KEY"}, "says unauthorized: "),
        ({}, "says externalAccountRequired: "),
    ],
    ids=["wrong key", "no key"],
)
def test_refused_account_is_one_sentence_and_no_storm(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName, options: Mapping[str, str], reason: str
) -> None:
    """An account that the CA refuses is requested once for all clients, and one log line says so."""
    with Pebble(dns, eab={"kid-1": _MAC_KEY}) as ca:
        running = proxy(ca=ca, start=False)
        running.options |= options
        running.environment["EAB_KEY"] = _OTHER_KEY
        running.start()

        for _ in range(20):
            assert not is_trusted(running.https_port, fresh_name(), ca.root())

        assert ca.seen().by_path["/sign-me-up"] == 1
        assert ca.seen().orders == 0
    assert _warnings(running) == 1
    assert reason in running.log.read_text()


def test_preferred_chain_is_looked_for_in_all_alternates(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """Each issuer that the CA offers can be chosen; an unknown one means the CA's default, and a warning."""
    with Pebble(dns, alternate_roots=2) as ca:
        roots = [ca.root(number) for number in range(3)]
        for chosen, root in enumerate(roots):
            running = proxy(ca=ca, acme_preferred_chain=_common_name(root))
            name = fresh_name()
            assert [is_trusted(running.https_port, name, other) for other in roots] == [
                number == chosen for number in range(3)
            ]
            assert "offers no chain" not in running.log_text()
            running.stop()

        running = proxy(ca=ca, acme_preferred_chain="No CA's Root")
        assert is_trusted(running.https_port, fresh_name(), roots[0])
        assert running.log_text().count("offers no chain issued by No CA's Root; the default chain is served") == 1


def test_profile_is_chosen_among_several(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """The certificate is of the profile of ``acme_profile``, which Pebble would draw at random otherwise."""
    with Pebble(dns, profiles={"day": DAY, "week": 7 * DAY, "month": 30 * DAY}) as ca:
        running = proxy(ca=ca, acme_profile="week")

        served = handshakes(running.https_port, [fresh_name() for _ in range(6)], ca.root())

    assert {_lifetime(s.leaf) for s in served} == {7 * DAY}


def test_unknown_profile_is_one_sentence_and_no_storm(
    proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """A profile that the CA does not offer is said once, with those that it offers, and never ordered."""
    with Pebble(dns) as ca:
        running = proxy(ca=ca, acme_profile="no-such")
        for _ in range(10):
            assert not is_trusted(running.https_port, fresh_name(), ca.root())

        assert ca.seen().by_path["/order-plz"] == 0
    assert _warnings(running) == 1
    assert "offers no profile 'no-such'; it offers default; " in running.log.read_text()


@pytest.mark.parametrize(
    ("key_type", "kind", "size"),
    [
        ("ecdsa-p256", ec.EllipticCurvePublicKey, 256),
        ("ecdsa-p384", ec.EllipticCurvePublicKey, 384),
        ("rsa-2048", rsa.RSAPublicKey, 2048),
        ("rsa-3072", rsa.RSAPublicKey, 3072),
        ("rsa-4096", rsa.RSAPublicKey, 4096),
    ],
)
def test_key_is_of_the_type_of_the_option(
    proxy: StartProxy, root: str, fresh_name: FreshName, key_type: str, kind: type, size: int
) -> None:
    """``acme_key_type`` decides the key of the certificate."""
    running = proxy(acme_key_type=[key_type], acme_handshake_wait=30)

    key = handshake(running.https_port, fresh_name(), root).leaf.public_key()

    assert isinstance(key, kind)
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    assert key.key_size == size


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("form", ["rsa pem", "ec pem", "p384 jwk"])
def test_own_account_key_is_used_and_never_stored(
    proxy: StartProxy, dns: ChallTestSrv, store: Storage, tmp_path: Path, fresh_name: FreshName, form: str
) -> None:
    """The account is that of the operator's key, PEM or JWK; storage holds its thumbprint and nothing else of it."""
    key = rsa.generate_private_key(65_537, 2048) if "rsa" in form else ec.generate_private_key(_curve(form))
    jwk = jose.JWKRSA(key=key) if isinstance(key, rsa.RSAPrivateKey) else jose.JWKEC(key=key)
    file = tmp_path / "account-key"
    file.write_text(_pem(key) if "pem" in form else jwk.json_dumps())
    with Pebble(dns) as ca:
        running = proxy(ca=ca, acme_account_key=f"file:{file}")
        handshake(running.https_port, fresh_name(), ca.root())

        kept = _account(store)
        assert kept["uri"] == _account_of(ca, jwk)
    assert kept["thumbprint"] == jose.encode_b64jose(jwk.thumbprint())
    assert kept["key"] == ""
    secret = jwk.to_json()["d"].encode()
    assert [key for key in store.keys("") if secret in (store.get(key) or b"")] == []


def test_name_over_64_characters_gets_a_certificate(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """A name that is too long for a common name is in the certificate all the same."""
    name = f"{'a' * 60}.{'b' * 60}.{fresh_name()}"
    running = proxy()

    served = handshake(running.https_port, name, root)

    assert served.names == [name]


def test_managed_certificate_holds_all_its_names(proxy: StartProxy, pebble: Pebble, root: str) -> None:
    """One entry of ``acme_certificates`` is one certificate for all its names, obtained before any client asks."""
    names = [f"{first}.many.example.test" for first in ("www", "api", "mail", "static")]
    before = pebble.seen()
    running = proxy(acme_certificates=[",".join(names)], acme_domains=[])
    eventually(lambda: (pebble.seen() - before).certificates)
    eventually(lambda: ": certificate by " in running.log.read_text())

    served = handshakes(running.https_port, names, root)

    assert sorted(served[0].names) == sorted(names)
    assert len({s.leaf.serial_number for s in served}) == 1
    assert (pebble.seen() - before).orders == 1


def _account(store: Storage) -> dict[str, str]:
    """The one account in the store."""
    (key,) = store.keys("accounts/")
    record: dict[str, str] = json.loads(store.get(key) or b"")
    return record


def _account_of(ca: Pebble, key: jose.JWK) -> str:
    """The URL that the CA knows the account of ``key`` by; it raises if there is none."""
    alg = jose.RS256 if isinstance(key, jose.JWKRSA) else {256: jose.ES256, 384: jose.ES384}[key.key.key_size]
    network = acme_client.ClientNetwork(key, alg=alg, verify_ssl=str(ca.ca_bundle))  # type: ignore[arg-type]
    network.session.trust_env = False
    client = acme_client.ClientV2(acme_client.ClientV2.get_directory(ca.directory, network), network)
    with pytest.raises(errors.ConflictError) as found:
        client.new_account(messages.NewRegistration(only_return_existing=True))
    return str(found.value.location)


def _curve(form: str) -> ec.EllipticCurve:
    return ec.SECP384R1() if "p384" in form else ec.SECP256R1()


def _common_name(root: str) -> str:
    subject = x509.load_pem_x509_certificate(root.encode()).subject
    return str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def _lifetime(leaf: x509.Certificate) -> int:
    return round((leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() + 1)


def _warnings(running: Mitmdump) -> int:
    """How many lines of the log say that there is no certificate."""
    return running.log.read_text().count("no certificate: ")
