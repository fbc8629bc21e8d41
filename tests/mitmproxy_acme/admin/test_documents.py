"""The documents of certificates and failures, field by field."""

from mitmproxy_acme.admin.certificate_rows import CertificateDetails, CertificateRow, State
from mitmproxy_acme.admin.documents import certificate, failure_of, timestamp
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, make_certificate

_CONFIG = Config.from_options(
    {"acme_certificates": ("a.test,b.test",), "acme_domains": ("**.example.test",), "acme_tos_accepted": True}
)


def test_certificate() -> None:
    """Times are UTC in any time zone; digests have colons as in OpenSSL."""
    held = make_certificate(["a.test", "b.test"])
    facts = CertificateDetails.of(held, EPOCH + 60 * DAY)

    document = certificate(CertificateRow(held.id, facts), _CONFIG, EPOCH, None)

    assert document["host"] == "a.test"
    assert document["names"] == ["a.test", "b.test"]
    assert (document["managed"], document["valid"], document["state"]) == (True, True, "valid")
    assert (document["not_before"], document["valid_from_at"]) == ("2027-01-15 08:00:00", "2027-01-15T08:00:00Z")
    assert (document["not_after"], document["expires_at"]) == ("2027-04-15 08:00:00", "2027-04-15T08:00:00Z")
    assert document["renew_at"] == "2027-03-16T08:00:00Z"
    assert document["digest"] == facts.sha1.hex(":").upper()
    assert int(document["serial_number"].replace(":", ""), 16) == held.leaf.serial_number
    assert (document["ca"], document["issuer_cn"]) == (DIRECTORY, "Fake Issuer")
    assert (document["pubkey_type"], document["key_type"]) == ("id-ecPublicKey", "ecdsa-p256")
    assert document["last_failure"] is None


def test_failure() -> None:
    """What failed, how often, and when it is tried again."""
    assert failure_of("a.test", Backoff(3, EPOCH, "no")) == {
        "host": "a.test",
        "reason": "no",
        "failures": 3,
        "retry_at": timestamp(EPOCH),
    }


def test_states_by_age() -> None:
    """A certificate is valid, due, expiring and expired, in that order; it begins to be valid at its time."""
    row = CertificateRow(ServerName("a.test"), CertificateDetails.of(make_certificate(["a.test"]), EPOCH + 50 * DAY))

    ages = {0: State.VALID, 49: State.VALID, 50: State.DUE, 60: State.DUE, 61: State.EXPIRING, 90: State.EXPIRED}

    assert {age: row.state(EPOCH + age * DAY) for age in ages} == ages
    assert [row.is_valid(EPOCH + age * DAY) for age in (-1, 0, 89, 90)] == [False, True, True, False]
