"""What is read from a CA's directory; end_to_end reads that of real ones."""

import email.utils

import pytest
import requests

from mitmproxy_acme.ca import directory_probe


def _reply(date: str | None) -> requests.Response:
    response = requests.Response()
    if date is not None:
        response.headers["Date"] = date
    return response


@pytest.mark.parametrize("ahead", [0.0, 90.0, -3_600.0])
def test_our_clock_is_compared_with_the_cas(ahead: float) -> None:
    """Positive where ours is ahead."""
    date = email.utils.formatdate(1_800_000_000, usegmt=True)
    assert directory_probe._clock_ahead(_reply(date), 1_800_000_000 + ahead) == ahead


@pytest.mark.parametrize(
    "date", [None, "", "soon", "Fri, 32 Dec 2027 00:00:00 GMT", "1 Jan 99999999999999999999 0:0:0 GMT"]
)
def test_clock_of_a_ca_that_says_no_date_is_unknown(date: str | None) -> None:
    """It is no error: the directory may be right."""
    assert directory_probe._clock_ahead(_reply(date), 1_800_000_000.0) is None
