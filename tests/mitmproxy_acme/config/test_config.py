"""What the options mean, and the messages for wrong values."""

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mitmproxy_acme.cli.mitmproxy_options import read_settings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.config.options import NAMES, OPTIONS
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, LimitKind
from tests.mitmproxy_acme.fakes import make_certificate

FERNET = Fernet.generate_key().decode()
ROOT = Path(__file__).resolve().parents[3]


def config(**options: Any) -> Config:
    return Config.from_options({"acme_tos_accepted": True} | options)


def test_defaults_leave_mitmproxy_alone() -> None:
    """With no option set the configuration is valid, and no name is ours."""
    assert not Config.from_options().active


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"acme_domains": ("*.*.a.test",)}, "acme_domains: '*.a.test' is not a host name"),
        ({"acme_domains": ("https://a.test",)}, "acme_domains: 'https://a.test' is a URL"),
        ({"acme_certificates": ("a.test,,b.test",)}, "acme_certificates: '' is not a host name"),
        ({"acme_certificates": ("a.test", "b.test,a.test")}, "a.test is listed twice"),
        ({"acme_certificates": ("*.a.test",)}, "add dns-01, or list"),
        ({"acme_certificates": ("2001:db8::1", "a.test,2001:DB8::0:1")}, "2001:db8::1 is listed twice"),
        (
            {"acme_certificates": ("a.test,192.0.2.1",), "acme_challenges": ("dns-01", "dns-persist-01")},
            "192.0.2.1 is an address, which DNS challenges cannot validate, and acme_challenges has only dns-01, "
            "dns-persist-01; add http-01",
        ),
        ({"acme_dns_zone": "acme.a.test"}, "acme_dns_zone: acme.a.test has no effect without a challenge in DNS"),
        ({"acme_dns_provider": "powerdns"}, "acme_dns_provider: powerdns has no effect without a challenge in DNS"),
        (
            {"acme_challenges": ("dns-01",), "acme_dns_zone": "acme.a.test", "acme_dns_provider": "powerdns"},
            "acme_dns_zone and acme_dns_provider: set only one of them",
        ),
        ({"acme_dns_nameservers": ("192.0.2.1",)}, "acme_dns_nameservers: '192.0.2.1' is an IP address"),
        ({"acme_dns_resolvers": ("resolver.test",)}, "acme_dns_resolvers: 'resolver.test' is not the address"),
        ({"acme_dns_resolvers": ("192.0.2.1:0",)}, "acme_dns_resolvers: '192.0.2.1:0' is not the address"),
        ({"acme_certificates": (",".join(f"n{n}.test" for n in range(101)),)}, "has 101 names"),
        ({"acme_ask": "ask.test"}, "acme_ask: the value is not a URL; write one that begins with http"),
        ({"acme_webhook": "hooks.test/services/hunter2"}, "acme_webhook: the value is not a URL"),
        ({"acme_on_demand": "later"}, "acme_on_demand: 'later' is not known; write one of wait, background, off"),
        ({"acme_handshake_wait": 0}, "acme_handshake_wait: 0 is too small"),
        ({"acme_fallback": "close"}, "acme_fallback: 'close' is not known; write one of mitm, reject"),
        ({"acme_ca": ()}, "acme_ca: it is empty"),
        ({"acme_ca": ("letsencrypt", "zerossl;eab_kid=k")}, "acme_eab_hmac_key: only one is set for zerossl"),
        ({"acme_ca": ("letsencrypt;eab=1",)}, "acme_ca: 'eab' is not a setting of a CA"),
        ({"acme_ca": ("zerossl;eab_alg=hs1",)}, "acme_ca: eab_alg: 'hs1' is not known; write one of HS256, HS384"),
        ({"acme_ca": ("zerossl;eab_kid=a;hunter2",)}, "acme_ca: a setting without a = is not a setting"),
        ({"acme_ca": ("letsencrypt;limits=1",)}, "ca_bundle, orders, certificates_per_domain, duplicates, failed_val"),
        (
            {"acme_ca": ("letsencrypt;orders=300",)},
            "acme_ca: orders: '300' is not a limit; write a number and a duration",
        ),
        ({"acme_ca": ("letsencrypt;orders",)}, "acme_ca: orders: '' is not a limit"),
        ({"acme_ca": ("letsencrypt;duplicates=0/7d",)}, "acme_ca: duplicates: '0/7d' is not a limit"),
        ({"acme_ca": ("letsencrypt;duplicates=-5/7d",)}, "acme_ca: duplicates: '-5/7d' is not a limit"),
        ({"acme_ca": ("ca;failed_validations=5/hour",)}, "acme_ca: failed_validations: 'hour' is not a duration"),
        (
            {"acme_ca": ("ca;certificates_per_domain=no",)},
            "such as 300/3h; or certificates_per_domain=off for no limit",
        ),
        ({"acme_ca_bundle": "/nowhere/ca.pem"}, "acme_ca_bundle: there is no file /nowhere/ca.pem"),
        ({"acme_ca_bundle": __file__}, "test_config.py holds no PEM certificates"),
        ({"acme_email": "me"}, "acme_email: 'me' is not one e-mail address"),
        ({"acme_email": "a@x.test, b@x.test"}, "is not one e-mail address"),
        ({"acme_account_key": "env:NO_SUCH_VARIABLE"}, "acme_account_key: the environment has no variable"),
        ({"acme_account_key": "file:/nowhere/key"}, "acme_account_key: /nowhere/key cannot be read: No such file"),
        ({"acme_eab_kid": "kid"}, "acme_eab_kid and acme_eab_hmac_key: only one is set"),
        ({"acme_challenges": ("tls-sni-01",)}, "acme_challenges: 'tls-sni-01' is not known; write one of http-01"),
        ({"acme_challenges": ()}, "acme_challenges: it is empty; write one or more of http-01"),
        ({"acme_key_type": ("ed25519",)}, "acme_key_type: 'ed25519' is not known; write one of ecdsa-p256"),
        ({"acme_key_type": ()}, "acme_key_type: it has nothing; write one type, or two of different kinds"),
        ({"acme_key_type": ("rsa-2048", "rsa-4096")}, "acme_key_type: it has rsa-2048, rsa-4096; write one type, or"),
        ({"acme_key_type": ("ecdsa-p256", "rsa-2048", "ecdsa-p384")}, "ecdsa-p384; write one type, or two"),
        ({"acme_renew_before": "14"}, "acme_renew_before: '14' is not a time to renew"),
        ({"acme_fail_backoff": "5"}, "acme_fail_backoff: '5' is not a duration"),
        ({"acme_fail_backoff": "36526d"}, "'36526d' is longer than a hundred years; write a shorter duration"),
        (
            {"acme_keep_expired": "long"},
            "acme_keep_expired: 'long' is not a time to keep; write a duration such as 30d",
        ),
        ({"acme_keep_expired": "23.9h"}, "acme_keep_expired: 23.9h is too short; write at least 1d, or off to keep"),
        ({"acme_storage_sealed_only": True}, "acme_storage_sealed_only: acme_storage_key is not set, so nothing is"),
        ({"acme_role": "data", "acme_storage": "memory:"}, "acme_role: a data node needs a storage that other nodes"),
        ({"acme_role": "control", "acme_storage": "MEMORY:x"}, "acme_role: a control node needs a storage that other"),
        ({"acme_admin_token": "env:BYTES"}, "acme_admin_token: the secret is not UTF-8; write text, or base64 if it"),
        ({"acme_storage_key": "hunter2"}, "acme_storage_key: the value is not a Fernet key"),
        ({"acme_storage_key": f"{FERNET}, hunter2"}, "acme_storage_key: key 2 of 2 is not a Fernet key"),
        ({"acme_storage_key": "file:/nowhere/key"}, "acme_storage_key: /nowhere/key cannot be read: No such file"),
        ({"acme_storage_key": "env:EMPTY"}, "acme_storage_key: env:EMPTY is empty"),
        ({"acme_admin_token": "env:EMPTY"}, "acme_admin_token: env:EMPTY is empty; put the secret there"),
        ({"acme_storage_key": " , "}, "acme_storage_key: it is set but gives no key"),
        ({"acme_tls_profile": "old"}, "acme_tls_profile: 'old' is not known"),
        ({"acme_cache_size": -1}, "acme_cache_size: -1 is too small"),
        (
            {"acme_domains": ("a.test",), "acme_tos_accepted": False},
            "acme_tos_accepted: letsencrypt issues no certificate",
        ),
    ],
)
def test_wrong_value_is_one_sentence(options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wrong value is refused with one line that names the option, what is wrong and what would be right."""
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setitem(os.environ, "BYTES", os.fsdecode(b"\xff" * 20))
    with pytest.raises(ConfigError) as caught:
        config(**options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert FERNET not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "field", "read"),
    [
        ("acme_handshake_wait", 1, "handshake_wait", 1),
        ("acme_cache_size", 1, "cache_size", 1),
        ("acme_keep_expired", "1d", "keep_expired", 86_400.0),
        ("acme_keep_expired", " off ", "keep_expired", None),
        ("acme_role", "data", "role", "data"),
        ("acme_on_demand", "off", "on_demand", "off"),
        ("acme_fallback", "reject", "fallback", "reject"),
        ("acme_unknown_names", "mitm", "unknown_names", "mitm"),
        ("acme_tls_profile", "modern", "tls_profile", "modern"),
        ("acme_lazy", False, "lazy", False),
        ("acme_ip_certificates", True, "ip_certificates", True),
        ("acme_challenge_passthrough", True, "challenge_passthrough", True),
        ("acme_hide_challenges", True, "hide_challenges", True),
        ("acme_idle", "off", "idle", False),
        ("acme_idle", "on", "idle", True),
        ("acme_challenges", ("tls-alpn-01", "http-01", "tls-alpn-01"), "challenges", ("tls-alpn-01", "http-01")),
        ("acme_log_format", "json", "log_format", "json"),
    ],
)
def test_value_at_its_bound_is_read(option: str, value: object, field: str, read: object) -> None:
    """Each option ends in its own field, and in no other."""
    before, after = config(), config(**{option: value})
    assert getattr(after, field) == read
    others = [slot for slot in Config.__slots__ if slot not in (field, "warnings")]
    assert {name: getattr(after, name) for name in others} == {name: getattr(before, name) for name in others}


_LISTED = ("10.0.0.5,a.test,198.51.100.7", "203.0.114.7", "8.8.8.8", "2001:4860:4860::8888")


@pytest.mark.parametrize(
    ("certificates", "reached", "meant"),
    [
        (_LISTED, "192.168.0.5", "203.0.114.7"),
        (_LISTED, "fd00::5", "2001:4860:4860::8888"),
        (_LISTED, "10.0.0.5", "10.0.0.5"),  # it is listed itself
        (_LISTED, "8.8.8.8", "8.8.8.8"),
        (_LISTED, "1.1.1.1", None),  # public, and not listed
        (("a.test", "10.0.0.5"), "192.168.0.5", None),
    ],
)
def test_address_that_a_client_without_a_name_means(
    certificates: tuple[str, ...], reached: str, meant: str | None
) -> None:
    """Behind NAT the first public one of the same kind; no name, and no private address, is one."""
    assert config(acme_certificates=certificates).address_for(ServerName(reached)) == meant


def test_email_is_that_of_each_ca_without_one_of_its_own() -> None:
    found = config(acme_email="mailto:me@example.com", acme_ca=("letsencrypt", "zerossl"))
    assert (found.email, {entry.email for entry in found.issuers}) == ("me@example.com", {"me@example.com"})


def test_secrets_are_read_by_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``env:`` and ``file:`` are followed; neither value shows in a repr, and no warning is drawn."""
    monkeypatch.setenv("HMAC", "c2VjcmV0 ")
    (tmp_path / "key").write_text("PRIVATE\n")
    found = config(acme_eab_kid="kid", acme_eab_hmac_key="env:HMAC", acme_account_key=f"file:{tmp_path}/key")
    assert (found.issuers[0].eab_hmac_key, found.account_key) == ("c2VjcmV0", "PRIVATE")
    assert found.warnings == ()
    assert not {"c2VjcmV0", "PRIVATE"} & set(repr(found).replace("'", " ").split())


@pytest.mark.parametrize("option", ["acme_ask", "acme_webhook"])
def test_url_that_may_hold_a_secret_shows_in_no_repr(option: str) -> None:
    """A token in its query, or a path that is one."""
    assert "hunter2" not in repr(config(**{option: "https://x.test/hunter2?token=hunter2"}))


def test_storage_keys_are_several(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Several references, and several keys behind each, in their order: the first is the newest."""
    keys = [Fernet.generate_key().decode() for _ in range(5)]
    monkeypatch.setenv("NEWEST", keys[0])
    monkeypatch.setenv("NEXT", f"{keys[1]}, {keys[2]}\n")
    (tmp_path / "old").write_text(f"{keys[3]}\n{keys[4]}\n")
    found = config(acme_storage_key=f"env:NEWEST, env:NEXT\nfile:{tmp_path}/old")
    assert found.storage_keys == tuple(keys)
    assert found.warnings == ()
    assert not any(key in repr(found) for key in keys)
    assert config().storage_keys == ()


def test_data_node_opens_no_account() -> None:
    """It is told to leave the account key out, and does not keep it."""
    key = Fernet.generate_key().decode()
    found = config(acme_role="data", acme_account_storage_key=key)
    assert found.account_storage_keys == ()
    assert "acme_account_storage_key: data nodes do not use accounts" in "".join(found.warnings)
    found = config(acme_role="control", acme_account_storage_key=key)
    assert found.account_storage_keys == (key,)
    assert key not in repr(found)


def test_sealed_only_needs_a_key() -> None:
    """It would refuse everything."""
    with pytest.raises(ConfigError, match=r"acme_storage_sealed_only: acme_storage_key is not set"):
        config(acme_storage_sealed_only=True)
    assert config(acme_storage_sealed_only=True, acme_storage_key=Fernet.generate_key().decode()).storage_sealed_only


def test_literal_storage_keys_draw_one_warning() -> None:
    """However many keys are written out, one warning says so, and shows none."""
    found = config(acme_storage_key=f"{FERNET},{Fernet.generate_key().decode()}")
    assert len(found.storage_keys) == 2
    assert len(found.warnings) == 1
    assert FERNET not in found.warnings[0]


def test_literal_secret_works_and_warns() -> None:
    """A secret that is written out draws a warning that does not repeat it."""
    found = config(acme_eab_kid="kid", acme_eab_hmac_key="c2VjcmV0")
    assert found.issuers[0].eab_hmac_key == "c2VjcmV0"
    assert len(found.warnings) == 1
    assert "c2VjcmV0" not in found.warnings[0]


def test_settings_of_a_ca_go_over_the_general_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings behind a CA's semicolons are its own."""
    monkeypatch.setenv("HMAC", "c2VjcmV0")
    entry = "https://ca.test/dir;eab_kid=kid; eab_hmac_key=env:HMAC ;profile=short;preferred_chain=Root X1"
    issuer = config(acme_ca=(entry,), acme_profile="classic").issuers[0]
    assert (issuer.ca, issuer.eab_kid, issuer.eab_hmac_key) == ("https://ca.test/dir", "kid", "c2VjcmV0")
    assert (issuer.profile, issuer.preferred_chain) == ("short", "Root X1")


def test_each_ca_has_its_own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """General settings apply to every CA, except the binding, which is the first one's; an empty setting is unset."""
    monkeypatch.setenv("HMAC", "c2VjcmV0")
    bundle = tmp_path / "ca.pem"
    bundle.write_text(make_certificate(["ca.test"]).chain_pem)
    first, second, third = config(
        acme_ca=("google", "zerossl;eab_kid=z;eab_hmac_key=env:HMAC;profile=short", "letsencrypt;ca_bundle=;profile="),
        acme_eab_kid="g",
        acme_eab_hmac_key="env:HMAC",
        acme_profile="classic",
        acme_ca_bundle=str(bundle),
    ).issuers
    assert [(issuer.ca, issuer.eab_kid) for issuer in (first, second, third)] == [
        ("google", "g"),
        ("zerossl", "z"),
        ("letsencrypt", ""),
    ]
    assert [issuer.profile for issuer in (first, second, third)] == ["classic", "short", ""]
    assert [issuer.ca_bundle for issuer in (first, second, third)] == [str(bundle), str(bundle), ""]


def test_limits_of_a_ca_are_set_behind_it() -> None:
    """Each is a number and a duration, or off; limits that are not set are those that the CA publishes."""
    issuer = config(acme_ca=("letsencrypt;profile=short; orders= 600/90m ;duplicates=off",)).issuers[0]
    assert issuer.limits == {LimitKind.ORDERS: Limit(600, 5_400.0), LimitKind.DUPLICATES: None}
    assert issuer.profile == "short"
    assert config(acme_ca=("letsencrypt",)).issuers[0].limits == {}


def test_ask_alone_lets_any_name_be_asked_for() -> None:
    """``acme_ask`` decides alone; beside ``acme_domains`` both must agree."""
    assert config(acme_ask="http://ask.test").subject(ServerName("any.test")) is not None
    both = config(acme_ask="http://ask.test", acme_domains=("a.test",))
    assert both.subject(ServerName("any.test")) is None


def test_subject_of_a_managed_name_is_its_whole_entry() -> None:
    """Each name of an entry leads to the one certificate."""
    found = config(acme_certificates=("A.test, b.test,a.test",), acme_domains=("*.test",))
    subject = found.subject(ServerName("b.test"))
    assert subject is not None
    assert subject.names == ("a.test", "b.test")
    assert subject.managed
    assert found.is_managed(ServerName("b.test"))
    assert not found.is_managed(ServerName("c.test"))
    other = found.subject(ServerName("c.test"))
    assert other is not None
    assert not other.managed


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_is_a_valid_configuration(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies an example has options that the addon knows and takes, and no warnings."""
    for variable in ("ACME_STORAGE_KEY", "ACME_ACCOUNT_STORAGE_KEY"):
        monkeypatch.setenv(variable, Fernet.generate_key().decode())
    (tmp_path / "config.yaml").write_text(example.read_text())
    settings = read_settings(tmp_path, [])
    ours = {name: value for name, value in settings.items() if name.startswith("acme_")}
    assert ours.keys() <= NAMES
    config = Config.from_options(ours)
    assert config.active
    assert not config.warnings


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://acme:hunter2@host/0", True),
        ("redis://:hunter2@host", True),
        ("redis://host?password=hunter2", True),
        ("vault://host/secret/acme?auth=approle&role_id=x&secret_id=hunter2", True),
        ("consul://host?token=hunter2", True),
        ("redis://acme:env:NAME@host/0", False),
        ("redis://acme:env%3ANAME@host/0", False),
        ("consul://host:8500/acme?token=env:NAME", False),
        ("redis://host:6379/0", False),
        ("postgresql://acme@host:5432/acme", False),
        ("file:/var/lib/acme", False),
    ],
)
def test_secret_that_is_written_out_in_a_storage_url_is_warned_of(url: str, warned: bool) -> None:
    """As for every other secret; the warning does not repeat it."""
    warnings = config(acme_storage=url).warnings
    assert bool(warnings) == warned
    assert "hunter2" not in str(warnings)


def test_reference_lists_every_option_with_its_default() -> None:
    """The tables in the documentation have the options of the code."""
    rows = {}
    for line in (ROOT / "docs/reference/options.md").read_text().splitlines():
        if line.startswith("| `acme_"):
            name, default, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = default
    assert rows == {option.name: _shown(option.default) for option in OPTIONS}


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return " ".join(f"`{entry}`" for entry in default) or "none"
    return f"`{default}`" if default != "" else "none"


def test_address_on_demand() -> None:
    """Only by ``acme_ip_certificates``, whatever names are allowed, and that option allows no name."""
    address, name = ServerName("192.0.2.1"), ServerName("a.test")
    names = config(acme_allow_any_domain=True, acme_domains=("re:.*",))
    assert names.subject(address) is None
    addresses = config(acme_ip_certificates=True)
    assert addresses.active
    assert addresses.subject(address) == Subject((address,))
    assert addresses.subject(name) is None


def test_managed_address_needs_no_option() -> None:
    """It may be listed together with names, with DNS challenges for those."""
    listing = config(acme_certificates=("*.a.test,192.0.2.1",), acme_challenges=("dns-01", "tls-alpn-01"))
    assert listing.subject(ServerName("192.0.2.1")) == listing.managed[0]
    assert listing.is_managed(ServerName("192.0.2.1"))
    assert listing.subject(ServerName("192.0.2.2")) is None
