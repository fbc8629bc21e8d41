"""A small fleet: none expire, limits are held, and orders are spread."""

import xml.etree.ElementTree
from dataclasses import replace

from mitmproxy_acme.core.rate_limits import Limit
from scripts.fleet import PAGE, fill, plot
from tests.simulation.fleet import DAY, HOUR, Fleet, live

# Twenty thousand names, of which one in twenty is computed.
SMALL = Fleet(
    20_000,
    45 * DAY,
    ari=True,
    nodes=3,
    seconds=40 * DAY,
    orders=Limit(300, 3 * HOUR),
    outage=(4 * DAY, 11 * DAY),
    revoked_at=30 * DAY,
    stands_for=20,
)


def test_outage_and_revocation_with_windows() -> None:
    """None expires in a week's outage, its hours have no order, and a revoked tenth is replaced within seven hours."""
    told = live(SMALL)

    assert told.expired == 0
    assert sum(told.by_hour[4 * 24 : 11 * 24]) == 0
    assert len(told.replaced_after) == 100
    assert max(told.replaced_after) < 7 * HOUR
    assert told.most_waiting < 5_000


def test_calm_orders_are_even() -> None:
    """Each day has about as many as every other, and each name is renewed once in thirty days."""
    told = live(replace(SMALL, outage=None, revoked_at=None))
    days = [sum(told.by_hour[day * 24 : day * 24 + 24]) for day in range(40)]

    assert 0.9 * 20_000 * 40 / 30 < sum(days) < 1.1 * 20_000 * 40 / 30
    assert max(days) < 2 * 20_000 / 30


def test_account_limit_is_held_without_windows() -> None:
    """No three hours have more orders than the limit, and a name that has to wait comes before its end."""
    told = live(replace(SMALL, ari=False, revoked_at=None))

    most = max(sum(told.by_hour[hour : hour + 3]) for hour in range(len(told.by_hour)))
    assert told.refused > 0
    assert most <= 2 * 300
    assert told.expired == 0


def test_outage_that_is_longer_than_certificates_last() -> None:
    """Physics: with 160 hours, a week without a CA ends all of them; nearly all are renewed in the days after it."""
    told = live(replace(SMALL, lifetime=160 * HOUR, seconds=16 * DAY, revoked_at=None, stands_for=100))

    assert told.expired == 20_000
    assert told.longest_without < 4 * DAY


def test_page_is_filled_between_its_comments() -> None:
    """The words around a table stay, and every table of the page is there."""
    page = PAGE.read_text()

    assert page.count("<!-- end -->") == 6
    assert page.count("| --- |") >= 6
    assert fill("a\n<!-- x -->\nold\n<!-- end -->\nb", "x", "new") == "a\n<!-- x -->\n\nnew\n\n<!-- end -->\nb"


def test_plot_is_an_image_of_its_curves() -> None:
    """One line for each, and the higher number is drawn higher."""
    root = xml.etree.ElementTree.fromstring(plot({"low": [1] * 10, "high": [1_000] * 10}, "two curves"))
    low, high = (line.attrib["points"].split() for line in root.iter("{http://www.w3.org/2000/svg}polyline"))

    assert len(low) == len(high) == 10
    assert float(high[0].split(",")[1]) < float(low[0].split(",")[1])
