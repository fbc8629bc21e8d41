"""When a certificate is due."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.renewal import (
    DAY,
    RenewalInfo,
    RenewBefore,
    describe_duration,
    first_check_at,
    is_expiring,
    parse_duration,
    renew_at,
    spread_after,
)
from tests.mitmproxy_acme.fakes import EPOCH, make_certificate

AUTO = RenewBefore.parse("auto")


@pytest.mark.parametrize(
    ("lifetime", "wish", "margin"),
    [
        (90 * DAY, "auto", 30 * DAY),
        (45 * DAY, "auto", 15 * DAY),
        (6 * DAY, "auto", 3 * DAY),
        (60, "auto", 30),
        (90 * DAY, "14d", 14 * DAY),
        (6 * DAY, "14d", 3 * DAY),  # never more than half: it would order again at once
        (60, "14d", 30),
        (90 * DAY, "25%", 22.5 * DAY),
        (6 * DAY, "25%", 1.5 * DAY),
    ],
)
def test_due_before_the_end(lifetime: float, wish: str, margin: float) -> None:
    """Days, per cent and auto are right for every lifetime that a CA gives."""
    certificate = make_certificate(["a.test"], lifetime=lifetime)
    assert renew_at(certificate, RenewBefore.parse(wish), None) == EPOCH + lifetime - margin


def test_time_to_come_is_not_when_it_was_obtained() -> None:
    """The clock of the node that ordered it was 89 days ahead: by that it would be renewed in the last eight hours."""
    wrong = replace(make_certificate(["a.test"], lifetime=90 * DAY), obtained=EPOCH + 89 * DAY)
    assert renew_at(wrong, AUTO, None, EPOCH + DAY) == EPOCH + 60 * DAY
    window = RenewalInfo(EPOCH + 50 * DAY, EPOCH + 51 * DAY, EPOCH)
    assert EPOCH + 50 * DAY <= renew_at(wrong, AUTO, window, EPOCH + DAY) <= EPOCH + 51 * DAY
    assert first_check_at(wrong, AUTO, EPOCH + DAY) < EPOCH + 0.25 * DAY
    assert renew_at(wrong, AUTO, None, EPOCH + 89 * DAY - 60) > EPOCH + 89.5 * DAY - 1, "clocks differ by so much"


def test_window_of_the_ca_counts_and_is_the_same_for_every_look() -> None:
    """The moment is in the suggested window, and every node chooses the same one."""
    certificate = make_certificate(["a.test"])
    info = RenewalInfo(EPOCH + 50 * DAY, EPOCH + 52 * DAY, EPOCH)
    moment = renew_at(certificate, AUTO, info)
    assert info.start <= moment <= info.end
    assert renew_at(certificate, AUTO, info) == moment


def test_certificates_spread_over_the_window() -> None:
    """A thousand certificates of one hour are not renewed in one moment."""
    info = RenewalInfo(EPOCH + 50 * DAY, EPOCH + 51 * DAY, EPOCH)
    moments = {renew_at(make_certificate(["a.test"]), AUTO, info) for _ in range(20)}
    assert max(moments) - min(moments) > DAY / 4


def test_window_beyond_the_end_is_not_believed() -> None:
    """The last twentieth of a life, and the last minute, is too late, whatever the CA suggests."""
    late = RenewalInfo(EPOCH + 200 * DAY, EPOCH + 201 * DAY, EPOCH)
    assert renew_at(make_certificate(["a.test"], lifetime=100 * DAY), AUTO, late) == EPOCH + 95 * DAY
    assert renew_at(make_certificate(["a.test"], lifetime=600), AUTO, late) == EPOCH + 540
    assert renew_at(make_certificate(["a.test"], lifetime=60), AUTO, late) == EPOCH + 40


def test_window_in_the_past_is_now_but_not_at_every_look() -> None:
    """A revoked certificate is due at once; if a CA says so of every new one, it is renewed once an hour."""
    past = RenewalInfo(EPOCH - 2 * DAY, EPOCH - DAY, EPOCH)
    assert renew_at(make_certificate(["a.test"]), AUTO, past) == EPOCH + 3_600
    assert renew_at(make_certificate(["a.test"], lifetime=100), AUTO, past) == EPOCH + 10


@pytest.mark.parametrize("wish", ["auto", "14d", "25%"])
def test_certificate_that_began_long_ago_is_not_due_at_once(wish: str) -> None:
    """Its life is counted from when it was obtained: else each renewal would be followed by the next."""
    certificate = replace(make_certificate(["a.test"], now=EPOCH - 1_000 * DAY, lifetime=1_090 * DAY), obtained=EPOCH)
    chosen, past = RenewBefore.parse(wish), RenewalInfo(0, 1, EPOCH)
    assert renew_at(certificate, chosen, None) > EPOCH + 59 * DAY
    assert renew_at(certificate, AUTO, past) == EPOCH + 3_600
    assert EPOCH < first_check_at(certificate, chosen) <= EPOCH + 90 * DAY


@pytest.mark.parametrize(
    "window",
    [(0, 0), (0, 1e-3), (-6e10, -6e10), (EPOCH - 10 * 365 * DAY, EPOCH), (EPOCH, 2.5e11), (2.5e11, 2.5e11 + 1e-3)],
    ids=["1970", "a millisecond", "year 1", "from long ago", "until year 9999", "in year 9999"],
)
@pytest.mark.parametrize("lifetime", [60, 3_600, 6 * DAY, 90 * DAY])
def test_absurd_window_neither_loops_nor_misses_the_end(window: tuple[float, float], lifetime: float) -> None:
    """Whatever a CA suggests, a tenth of the life (an hour at most) is over first, and some of it is left."""
    certificate = replace(make_certificate(["a.test"], lifetime=lifetime), obtained=EPOCH)
    moment = renew_at(certificate, AUTO, RenewalInfo(*window, EPOCH))
    assert min(lifetime / 10, 3_600) <= moment - EPOCH <= lifetime * 0.95


def test_suggestion_that_holds_for_years_is_asked_for_again() -> None:
    """A wrong clock wrote it; and an expired one is asked for again."""
    assert RenewalInfo(0, 1, EPOCH + DAY).is_current(EPOCH)
    assert not RenewalInfo(0, 1, EPOCH + 2 * DAY).is_current(EPOCH)
    assert not RenewalInfo(0, 1, EPOCH).is_current(EPOCH)


def test_operator_who_chose_a_time_is_obeyed() -> None:
    """With an explicit ``acme_renew_before`` the CA's window does not count."""
    certificate = make_certificate(["a.test"])
    info = RenewalInfo(EPOCH, EPOCH + 1, EPOCH)
    assert renew_at(certificate, RenewBefore.parse("14d"), info) == EPOCH + 76 * DAY


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 60), (21_600, 21_600), (1e9, DAY)])
def test_retry_after_of_the_window_is_clamped(retry_after: float, wait: float) -> None:
    """The CA is asked again after a minute at the soonest, and a day at the latest."""
    assert RenewalInfo.suggest(0, 1, retry_after, EPOCH).ask_again == EPOCH + wait


@given(st.floats(min_value=10, max_value=400 * DAY))
def test_first_look_comes_early_and_never_after_the_renewal(lifetime: float) -> None:
    """A new certificate is checked within a tenth of its lifetime, so that the CA's window is known in time."""
    lifetime = float(int(lifetime))
    certificate = make_certificate(["a.test"], lifetime=lifetime)
    look = first_check_at(certificate, AUTO)
    assert EPOCH < look <= EPOCH + lifetime / 10
    assert look <= EPOCH + 6 * 3_600


@pytest.mark.parametrize("text", ["", "soon", "0%", "100%", "-1d", "0d", "5", "1y", "25 %", "auto "])
def test_wrong_wish_is_explained(text: str) -> None:
    """A value that is no time to renew stops the start, and the message shows right ones."""
    with pytest.raises(ConfigError, match=r"acme_renew_before: .*auto.*14d.*25%"):
        RenewBefore.parse(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7_200), ("14d", 14 * DAY)])
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number and a unit."""
    assert parse_duration(text) == seconds


def test_expiring_from_a_third_of_the_life_on() -> None:
    """A person is warned in the last third, and not before."""
    certificate = make_certificate(["a.test"], lifetime=90)
    assert not is_expiring(certificate, EPOCH + 59)
    assert is_expiring(certificate, EPOCH + 61)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59, "59 s"), (600, "10 min"), (7_200, "2 h"), (90 * DAY, "90 days")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    """A log line says 10 min, not 600.0."""
    assert describe_duration(seconds) == text


def test_window_that_is_over_or_explained_is_told() -> None:
    """Both are signs that the CA may revoke the certificate; a window that lies ahead is none."""
    assert RenewalInfo(EPOCH, EPOCH + 10, EPOCH).is_ordinary(EPOCH + 9)
    assert not RenewalInfo(EPOCH, EPOCH + 10, EPOCH).is_ordinary(EPOCH + 10)
    assert not RenewalInfo(EPOCH, EPOCH + 10, EPOCH, "https://ca.test/why").is_ordinary(EPOCH)


def test_spread_is_a_hundredth_of_what_is_left() -> None:
    """It is the same for every node, another one at each attempt, and ten minutes for one that has ended."""
    certificate = make_certificate(["a.example.test"], lifetime=45 * DAY)
    at = certificate.not_after - 15 * DAY

    spread = spread_after(certificate, at)

    assert at <= spread <= at + 15 * DAY / 100
    assert spread == spread_after(certificate, at)
    assert spread - at != spread_after(certificate, at + 600) - (at + 600)
    ended = certificate.not_after + 1
    assert ended < spread_after(certificate, ended) <= ended + 600
