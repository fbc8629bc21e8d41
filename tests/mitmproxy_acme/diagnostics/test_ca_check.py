"""Findings about a CA beyond those from its directory."""

from typing import Any

from mitmproxy_acme.ca import known_cas
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.diagnostics import ca_check
from mitmproxy_acme.diagnostics.finding import Severity
from tests.servers.base import free_port


def test_no_ca_answers() -> None:
    """Without any CA to order from, each outage is a failure, reported once."""
    options: dict[str, Any] = {"acme_ca": tuple(f"https://127.0.0.1:{free_port()}/dir" for _ in range(2))}
    config = Config.from_options(options)
    cas = [ca_check.Ca(config, issuer) for issuer in config.issuers]
    assert [finding for one in cas for finding in one.inspect()] == []
    said = list(ca_check.outages(cas))
    assert [finding.outcome for finding in said] == [Severity.FAIL, Severity.FAIL]
    assert [finding.what for finding in said] == [f"{one.name} cannot be reached: no connection" for one in cas]


def lacks(name: str, **options: Any) -> dict[str, Severity]:
    """Return the findings about one CA that is followed by others."""
    given = {"acme_ca": (f"{name};eab_kid=k;eab_hmac_key=k", "https://ca.test/dir"), "acme_tos_accepted": True}
    config = Config.from_options(given | options)
    issuer = config.issuers[0]
    return {
        finding.what: finding.outcome for finding in ca_check.Ca(config, issuer)._not_issued(known_cas.resolve(issuer))
    }


def test_what_another_ca_has_to_issue_is_told() -> None:
    """Managed certificates one by one; addresses on demand once."""
    managed = lacks("zerossl", acme_certificates=("8.8.8.8", "a.test"))
    assert managed == {
        "acme_certificates: 8.8.8.8: zerossl issues no certificates for addresses, and 8.8.8.8 is one; add a CA to "
        "acme_ca that does": Severity.WARN
    }
    on_demand = lacks("zerossl", acme_ip_certificates=True)
    assert list(on_demand.values()) == [Severity.WARN]
    assert next(iter(on_demand)).startswith("acme_ip_certificates: zerossl issues no certificates for addresses; ")


def test_ca_that_can_is_left_in_peace() -> None:
    """There are no findings."""
    assert lacks("letsencrypt", acme_certificates=("8.8.8.8", "a.test"), acme_ip_certificates=True) == {}
