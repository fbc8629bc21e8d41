"""What is said of a CA, beside what its directory says."""

from typing import Any

from mitmproxy_acme.config import Config
from mitmproxy_acme.issuing import authorities
from mitmproxy_acme.operating.preflight import Outcome
from mitmproxy_acme.operating.preflight.ca import Ca


def lacks(ca: str, **options: Any) -> dict[str, Outcome]:
    """What is said of one of the CAs, that has others behind it."""
    given = {"acme_ca": (f"{ca};eab_kid=k;eab_hmac_key=k", "https://ca.test/dir"), "acme_tos_accepted": True}
    config = Config.from_options(given | options)
    issuer = config.issuers[0]
    return {finding.what: finding.outcome for finding in Ca(config, issuer)._lacks(authorities.resolve(issuer))}


def test_what_another_ca_has_to_issue_is_told() -> None:
    """Of managed certificates one by one; and of addresses on demand once."""
    managed = lacks("zerossl", acme_certificates=("8.8.8.8", "a.test"))
    assert managed == {
        "acme_certificates: 8.8.8.8: zerossl issues no certificates for addresses, and 8.8.8.8 is one; add a CA that "
        "does to acme_ca": Outcome.WARN
    }
    on_demand = lacks("zerossl", acme_ip_certificates=True)
    assert list(on_demand.values()) == [Outcome.WARN]
    assert next(iter(on_demand)).startswith("acme_ip_certificates: zerossl issues no certificates for addresses; ")


def test_ca_that_can_is_left_in_peace() -> None:
    """Nothing is said of it."""
    assert lacks("letsencrypt", acme_certificates=("8.8.8.8", "a.test"), acme_ip_certificates=True) == {}
