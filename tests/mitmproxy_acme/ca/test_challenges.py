"""Which challenge is taken, and what proves it."""

import base64
import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import josepy as jose
import pytest
from acme import messages

from mitmproxy_acme.ca import challenges
from mitmproxy_acme.ca.key_generation import new_account_key
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.proof import Proof

ACCOUNT = "https://ca.test/account/1"
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


def authorization(
    *types: str,
    value: str = "a.example.test",
    kind: str = "dns",
    wildcard: bool = False,
    said: Mapping[str, object] = MappingProxyType({}),
) -> messages.Authorization:
    """Make a CA's authorization with ``said`` in each challenge; a type with a question mark has no token."""
    offers = [
        {"type": type.rstrip("?"), "url": f"https://ca.test/{type}", "status": "pending"}
        | ({} if type.endswith("?") else {"token": TOKEN})
        | dict(said)
        for type in types
    ]
    fields = {"identifier": {"type": kind, "value": value}, "status": "pending", "challenges": offers}
    return messages.Authorization.from_json(fields | ({"wildcard": True} if wildcard else {}))


def thumbprint(key: jose.JWK) -> str:
    return jose.b64encode(key.thumbprint()).decode()


def test_order_of_preference_is_ours() -> None:
    """Not the CA's; other offers are ignored, even unknown ones."""
    offered = authorization("dns-persist-01?", "http-01", "tls-alpn-01", "dns-01")
    for types in (("http-01", "tls-alpn-01"), ("tls-alpn-01", "http-01")):
        challenge, body = challenges.choose(types, offered)
        assert challenge.type == types[0]
        assert body.uri == f"https://ca.test/{types[0]}"


def test_what_the_ca_does_not_offer_is_said() -> None:
    """With what it offers, and what the option allows."""
    with pytest.raises(
        ChallengeFailed, match=r"a\.example\.test: the CA offers dns-01, and acme_challenges allows http-01"
    ):
        challenges.choose(("http-01",), authorization("dns-01"))


def test_wildcard_is_validated_by_neither() -> None:
    """RFC 8555 section 8.3 and RFC 8737 section 3."""
    with pytest.raises(ChallengeFailed):
        challenges.choose(("http-01", "tls-alpn-01"), authorization("http-01", "tls-alpn-01", wildcard=True))


def test_proofs() -> None:
    """http-01 shows the key authorization, tls-alpn-01 its digest, under the name or the reverse of an address."""
    key = new_account_key()
    key_authorization = f"{TOKEN}.{thumbprint(key)}"
    digest = hashlib.sha256(key_authorization.encode()).hexdigest()
    for type, offered, place, value in (
        ("http-01", authorization("http-01"), TOKEN, key_authorization),
        ("tls-alpn-01", authorization("tls-alpn-01"), "a.example.test", digest),
        ("tls-alpn-01", authorization("tls-alpn-01", value="127.0.0.1", kind="ip"), "1.0.0.127.in-addr.arpa", digest),
    ):
        challenge, body = challenges.choose((type,), offered)
        assert challenge.prove(offered, body, challenges.Prover(key, ACCOUNT)) == Proof(type, place, value)


def test_proofs_in_dns_are_of_the_name_without_its_star() -> None:
    """dns-01 and dns-account-01 show the digest of the key authorization, the latter at the account's own name."""
    key = new_account_key()
    digest = jose.b64encode(hashlib.sha256(f"{TOKEN}.{thumbprint(key)}".encode()).digest()).decode()
    label = "_" + base64.b32encode(hashlib.sha256(ACCOUNT.encode()).digest()[:10]).decode().lower()
    for type, place in (("dns-01", ""), ("dns-account-01", f"{label}.")):
        for wildcard in (False, True):
            offered = authorization("http-01", type, wildcard=wildcard)
            challenge, body = challenges.choose((type,), offered)
            proof = challenge.prove(offered, body, challenges.Prover(key, ACCOUNT))
            assert proof == Proof(type, f"{place}_acme-challenge.a.example.test", digest)
    with pytest.raises(ChallengeFailed):
        challenges.choose(("dns-01", "dns-account-01"), authorization("dns-01", value="127.0.0.1", kind="ip"))


@pytest.mark.parametrize(
    "said",
    [
        {"issuer-domain-names": ["ca.test", "too.test"]},
        {"issuerDomainNames": ["ca.test"]},
        {"issuer-domain-names": ["ca.test"], "accounturi": ACCOUNT},
        {"issuerDomainNames": ["ca.test"], "accountURI": ACCOUNT},
    ],
)
def test_standing_record_is_made_of_what_the_ca_says(said: dict[str, object]) -> None:
    """Its name, in either spelling of the draft, and our account, which it may say too."""
    prover = challenges.Prover(new_account_key(), ACCOUNT)
    for wildcard in (False, True):
        offered = authorization("dns-persist-01?", wildcard=wildcard, said=said)
        challenge, body = challenges.choose(("dns-persist-01",), offered)
        value = f"ca.test; accounturi={ACCOUNT}" + ("; policy=wildcard" if wildcard else "")
        assert challenge.prove(offered, body, prover) == Proof(
            "dns-persist-01", "_validation-persist.a.example.test", value
        )


@pytest.mark.parametrize("field", ["accounturi", "accountURI"])
@pytest.mark.parametrize("account", ["https://other.test/account/1", f"{ACCOUNT}\n\x1b[2J", 1_000 * "x", ["x"], 7])
def test_record_for_another_account_is_refused(field: str, account: object) -> None:
    """Publishing it would let that account order certificates; the CA's text is one short line."""
    offered = authorization("dns-persist-01?", said={"issuer-domain-names": ["ca.test"], field: account})
    challenge, body = challenges.choose(("dns-persist-01",), offered)
    with pytest.raises(ChallengeFailed, match="publish no record for another account") as caught:
        challenge.prove(offered, body, challenges.Prover(new_account_key(), ACCOUNT))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("issuer", "account"),
    [
        ('ca.test\n_acme-challenge.a.test. TXT "x', ACCOUNT),
        ("ca.test; accounturi=https://other.test/1", ACCOUNT),
        ("ca.test\x1b[31m", ACCOUNT),
        (".".join(5 * [60 * "a"]), ACCOUNT),
        ("", ACCOUNT),
        ("ca.test", "https://ca.test/1\nx"),
        ("ca.test", 'https://ca.test/1" "'),
        ("ca.test", "https://ca.test/1; policy=wildcard"),
        ("ca.test", "https://ca.test/\\065"),
        ("ca.test", "https://ca.test/" + 300 * "a"),
        ("ca.test", "https://ca.test/" + 220 * "a"),
        ("ca.test", "ftp://ca.test/1"),
    ],
)
def test_record_that_cannot_be_published_is_refused(issuer: str, account: str) -> None:
    """The CA chooses its name and the URL of the account; both are printed as a line of a zone file."""
    offered = authorization("dns-persist-01?", said={"issuer-domain-names": [issuer]})
    challenge, body = challenges.choose(("dns-persist-01",), offered)
    with pytest.raises(ChallengeFailed, match="cannot be published") as caught:
        challenge.prove(offered, body, challenges.Prover(new_account_key(), account))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("names", ["ca.test", {"ca.test": 1}, 7, [], [[]], None])
def test_names_of_another_shape_are_refused(names: object) -> None:
    offered = authorization("dns-persist-01?", said={"issuer-domain-names": names})
    challenge, body = challenges.choose(("dns-persist-01",), offered)
    with pytest.raises(ChallengeFailed):
        challenge.prove(offered, body, challenges.Prover(new_account_key(), ACCOUNT))


def test_ca_that_does_not_say_its_name_is_refused() -> None:
    """Then there is no record to publish."""
    offered = authorization("dns-persist-01?")
    challenge, body = challenges.choose(("dns-persist-01",), offered)
    with pytest.raises(ChallengeFailed, match="does not give its name"):
        challenge.prove(offered, body, challenges.Prover(new_account_key(), ACCOUNT))
