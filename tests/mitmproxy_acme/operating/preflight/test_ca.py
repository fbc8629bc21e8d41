"""What is said of CAs that do not answer."""

from typing import Any

from mitmproxy_acme.config import Config
from mitmproxy_acme.operating.preflight import Outcome, ca
from tests.servers.base import free_port


def test_no_ca_answers() -> None:
    """With nobody to order from each of them is a failure, told once."""
    options: dict[str, Any] = {"acme_ca": tuple(f"https://127.0.0.1:{free_port()}/dir" for _ in range(2))}
    config = Config.from_options(options)
    cas = [ca.Ca(config, issuer) for issuer in config.issuers]
    assert [finding for one in cas for finding in one.inspect()] == []
    said = list(ca.outages(cas))
    assert [finding.outcome for finding in said] == [Outcome.FAIL, Outcome.FAIL]
    assert [finding.what for finding in said] == [f"{one.name} cannot be reached: no connection" for one in cas]
