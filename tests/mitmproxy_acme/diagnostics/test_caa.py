"""CAA records as RFC 8659 and RFC 8657 have them: the climb, the sets, the parameters."""

import pytest

from mitmproxy_acme.diagnostics.caa import lock, refusal, relevant
from mitmproxy_acme.diagnostics.resolver import Caa

ACCOUNT = "https://ca.test/account/1"


def issue(value: str, *, tag: str = "issue", critical: bool = False) -> Caa:
    return Caa(critical, tag, value)


@pytest.mark.parametrize(
    ("name", "holder"),
    [
        ("a.b.example.test", "b.example.test"),
        ("*.b.example.test", "b.example.test"),
        ("c.test", "test"),
        ("x.org", None),
    ],
)
def test_climb(name: str, holder: str | None) -> None:
    """The nearest name with records counts, up to the top level, and a wildcard's star is no label."""
    records = {
        "b.example.test": [issue("one.test")],
        "example.test": [issue("two.test")],
        "test": [issue("three.test")],
    }
    found, of_it = relevant(name, lambda domain: records.get(domain, []))
    assert (found, of_it) == ((holder, records[holder]) if holder else (name, []))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], ""),
        ([issue("ours.test")], ""),
        ([issue("OURS.test. ")], ""),
        ([issue("other.test"), issue("ours.test")], ""),
        ([issue("mailto:me@a.test", tag="iodef")], ""),
        ([issue("other.test"), issue("another.test")], "only another.test, other.test may issue"),
        ([issue(";")], "no CA may issue"),
        ([issue("other.test", tag="issuewild")], ""),
        (
            [issue("ours.test"), issue("x", tag="tbs", critical=True)],
            "it has a critical property 'tbs' that CAs do not know",
        ),
        ([issue("ours.test"), issue("x", tag="tbs")], ""),
        ([issue("ours.test; validationmethods=dns-01")], "the CA may issue only with validationmethods=dns-01"),
        ([issue("ours.test; validationmethods=dns-01,http-01")], ""),
        ([issue(f"ours.test;accounturi={ACCOUNT}")], ""),
        ([issue("ours.test; accounturi=https://x")], "the CA may issue only with accounturi=https://x"),
        ([issue("ours.test; accounturi=https://x"), issue("ours.test")], ""),
    ],
)
def test_records(records: list[Caa], said: str) -> None:
    """What the records allow a CA with two identities."""
    assert refusal(records, ("ours.test", "ours-too.test"), ACCOUNT, ["http-01"], wildcard=False) == said


def test_wildcard_has_a_property_of_its_own() -> None:
    """``issuewild`` goes over ``issue`` for a wildcard, and only there."""
    records = [issue("ours.test"), issue("other.test", tag="issuewild")]
    assert refusal(records, ("ours.test",), "", ["http-01"], wildcard=True) == "only other.test may issue"
    assert refusal(records, ("ours.test",), "", ["http-01"], wildcard=False) == ""


def test_lock_is_what_it_lets_through() -> None:
    """The printed record lets only this account issue, only by these challenges."""
    text = lock("example.com", "ours.test", ACCOUNT, ["tls-alpn-01", "dns-01"])
    assert text == f'example.com. CAA 0 issue "ours.test; accounturi={ACCOUNT}; validationmethods=tls-alpn-01,dns-01"'
    record = [Caa(critical=False, tag="issue", value=text.split('"')[1])]
    for account, challenges, is_refused in (
        (ACCOUNT, ["dns-01"], False),
        (ACCOUNT, ["http-01"], True),
        (ACCOUNT + "0", ["dns-01"], True),
    ):
        assert bool(refusal(record, ("ours.test",), account, challenges, wildcard=False)) is is_refused
    assert refusal(record, ("theirs.test",), ACCOUNT, ["dns-01"], wildcard=False)
