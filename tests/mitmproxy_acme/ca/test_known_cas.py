"""The known CAs, and what the operator may override."""

import pytest

from mitmproxy_acme.ca.known_cas import ALIASES, resolve, resolve_all
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.rate_limits import Limit, LimitKind, Limits
from mitmproxy_acme.core.renewal import DAY

PUBLISHED = Limits(Limit(300, 10_800), Limit(50, 7 * DAY), Limit(5, 7 * DAY), Limit(5, 3_600))


@pytest.mark.parametrize("ca", ["letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"])
def test_lets_encrypt_has_the_limits_that_it_publishes(ca: str) -> None:
    """By its alias and by its URL; they refill as its documentation says."""
    limits = resolve(CaSettings(ca)).limits
    assert limits == PUBLISHED
    refills = {kind: limit.interval for kind in LimitKind if (limit := limits.of(kind))}
    assert refills[LimitKind.ORDERS] == 36
    assert refills[LimitKind.CERTIFICATES_PER_DOMAIN] == pytest.approx(202 * 60, rel=0.01)
    assert refills[LimitKind.DUPLICATES] == pytest.approx(34 * 3_600, rel=0.02)
    assert refills[LimitKind.FAILED_VALIDATIONS] == 12 * 60


@pytest.mark.parametrize("ca", [*sorted(ALIASES.keys() - {"letsencrypt"}), "https://ca.test/directory"])
def test_other_ca_has_no_limits_until_they_are_set(ca: str) -> None:
    """Nothing is invented: a limit that is not published refuses no order."""
    assert resolve(CaSettings(ca, eab_kid="kid", eab_hmac_key="key")).limits == Limits()
    issuer = CaSettings(ca, eab_kid="kid", eab_hmac_key="key", limits={LimitKind.ORDERS: Limit(9, 60)})
    assert resolve(issuer).limits == Limits(orders=Limit(9, 60))


@pytest.mark.parametrize("twin", ["letsencrypt;orders=off", ALIASES["letsencrypt"].directory])
def test_same_ca_twice_is_a_mistake(twin: str) -> None:
    """By its alias or by its URL: the second could never help the first out."""
    issuers = Config.from_options({"acme_ca": ("letsencrypt", "https://ca.test/dir", twin)}).issuers
    assert [ca_info.directory for ca_info in resolve_all(issuers[:2])][1] == "https://ca.test/dir"
    with pytest.raises(ConfigError, match="and letsencrypt are the same CA; keep one of the entries"):
        resolve_all(issuers)


@pytest.mark.parametrize(
    ("staging", "said"),
    [
        ("https://ca.test/dir", "is https://ca.test/dir itself"),
        ("google-staging", "requires an external account binding, which rehearsals"),
        ("stagging", "'stagging' is neither a known CA"),
        ("http://ca.test/stage", "nor the https:// URL of a directory"),
    ],
)
def test_staging_that_cannot_be_used_is_a_mistake(staging: str, said: str) -> None:
    """It is reported at the start, not after a name has failed."""
    issuers = Config.from_options({"acme_ca": (f"https://ca.test/dir;staging={staging}",)}).issuers
    with pytest.raises(ConfigError, match=f"acme_ca: .*{said}"):
        resolve_all(issuers)


def test_setting_goes_over_what_is_published() -> None:
    """One is raised, one is off, and the others stay."""
    limits = resolve(
        CaSettings("letsencrypt", limits={LimitKind.ORDERS: Limit(600, 10_800), LimitKind.DUPLICATES: None})
    ).limits
    assert limits == Limits(Limit(600, 10_800), Limit(50, 7 * DAY), None, Limit(5, 3_600))
