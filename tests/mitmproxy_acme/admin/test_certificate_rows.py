"""One row of the list: its state at each moment, its place, and what finds it."""

from dataclasses import replace

import pytest

from mitmproxy_acme.admin.certificate_rows import CertificateDetails, CertificateRow, SortKey, State
from mitmproxy_acme.admin.summary import EXPIRY_DAYS, summarize
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from tests.mitmproxy_acme.fakes import EPOCH, make_certificate

_A = ServerName("a.example.test")
_CERTIFICATE = make_certificate([_A, "www.example.test"], lifetime=90 * DAY)
_DETAILS = CertificateDetails.of(_CERTIFICATE, EPOCH + 55 * DAY)
_END = EPOCH + 90 * DAY


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (EPOCH, State.VALID),
        (EPOCH + 55 * DAY - 1, State.VALID),
        (EPOCH + 55 * DAY, State.DUE),
        (EPOCH + 60 * DAY, State.DUE),
        (EPOCH + 60 * DAY + 1, State.EXPIRING),
        (_END - 1, State.EXPIRING),
        (_END, State.EXPIRED),
    ],
)
def test_state_follows_the_time(now: float, state: State) -> None:
    """Idle ones are idle at any time."""
    assert CertificateRow(_A, _DETAILS).state(now) is state
    assert CertificateRow(_A, replace(_DETAILS, idle_since=EPOCH)).state(now) is State.IDLE
    assert CertificateRow(_A, None).state(now) is State.UNREADABLE


@pytest.mark.parametrize(("now", "valid"), [(EPOCH - 1, False), (EPOCH, True), (_END - 1, True), (_END, False)])
def test_clients_accept_it_from_its_begin_to_its_end(now: float, valid: bool) -> None:
    assert CertificateRow(_A, _DETAILS).is_valid(now) is valid
    assert not CertificateRow(_A, None).is_valid(now)


def test_details_are_those_of_the_certificate() -> None:
    found = CertificateDetails.of(_CERTIFICATE, 5.0, idle=True)
    assert (found.names, found.issuer, found.key_type) == (
        ("a.example.test", "www.example.test"),
        "Fake Issuer",
        "ecdsa-p256",
    )
    assert (found.not_before, found.not_after, found.renew_at) == (EPOCH, _END, 5.0)
    assert (found.serial, found.sha256, len(found.sha1)) == (
        _CERTIFICATE.leaf.serial_number,
        _CERTIFICATE.fingerprint,
        20,
    )
    assert (found.idle_since, _DETAILS.idle_since) == (_CERTIFICATE.begun, None)


def test_what_expires_first_is_first_and_what_cannot_be_read_last() -> None:
    """Whatever their names are."""
    rows = [
        CertificateRow(ServerName("c.test"), replace(_DETAILS, not_after=9.0)),
        CertificateRow(ServerName("b.test"), replace(_DETAILS, not_after=10.0)),
        CertificateRow(ServerName("d.test"), replace(_DETAILS, not_after=10.0)),
        CertificateRow(ServerName("a.test"), None),
    ]
    assert sorted(rows, key=lambda row: row.sort_value(SortKey.EXPIRY)) == rows
    assert [row.id for row in sorted(rows, key=lambda row: row.sort_value(SortKey.HOST))] == [
        "a.test",
        "b.test",
        "c.test",
        "d.test",
    ]


@pytest.mark.parametrize(("search", "found"), [("a.ex", True), ("www", True), ("", True), ("b.ex", False)])
def test_any_of_its_names_finds_it(search: str, found: bool) -> None:
    assert CertificateRow(_A, _DETAILS).matches(search) is found
    assert CertificateRow(_A, None).matches(search) is (found and search != "www")


def test_summary_counts_each_state_and_each_time_to_the_end() -> None:
    """Up to and with its last moment; idle and unreadable ones have no time."""
    ends = [EPOCH, EPOCH + 1, EPOCH + DAY, EPOCH + DAY + 1, EPOCH + 90 * DAY, EPOCH + 91 * DAY]
    rows = [CertificateRow(_A, replace(_DETAILS, not_after=end, renew_at=end - 10)) for end in ends]
    idle = replace(_DETAILS, not_after=EPOCH + 0.5, renew_at=1.0, idle_since=EPOCH)
    summary = summarize([*rows, CertificateRow(_A, idle), CertificateRow(_A, None)], EPOCH)
    assert summary.total == 8
    assert {state: count for state, count in summary.counts.items() if count} == {
        State.VALID: 4,
        State.DUE: 1,
        State.IDLE: 1,
        State.EXPIRED: 1,
        State.UNREADABLE: 1,
    }
    assert [summary.expiry[days] for days in EXPIRY_DAYS] == [1, 2, 1, 0, 0, 0, 0, 1, 1]
    assert (summary.soonest_expiry, summary.soonest_renewal) == (EPOCH + 1, EPOCH - 10)


def test_summary_of_nothing_has_no_times() -> None:
    summary = summarize([], EPOCH)
    assert (summary.total, summary.soonest_expiry, summary.soonest_renewal) == (0, None, None)
    assert set(summary.counts) == set(State)
