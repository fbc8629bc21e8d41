"""The calendar of the industry: green before each date.

Each change is lived through here, the shorter lifetimes with an outage too and for two of them; ``scripts/simulate
--calendar`` takes every combination, with more names, for three.
"""

import itertools

import pytest

from tests.simulation.calendar_run import Course, Lived, live_through, margin
from tests.simulation.industry_calendar import CALENDAR, DAY, Change


@pytest.mark.parametrize("change", CALENDAR, ids=str)
def test_calm_change(change: Change) -> None:
    """Two nodes, a CA without renewal windows: each name is renewed when a third of its life is left, by one order."""
    lived = live_through(Course(change, ari=False, outage=False))

    require_green(lived)
    least, most = lived.expected()
    assert least == most == len(lived.issued["m0.example.test"])
    assert lived.handshakes > 250


@pytest.mark.parametrize("change", [one for one in CALENDAR if one.after.lifetime < 90 * DAY], ids=str)
def test_change_and_the_longest_outage(change: Change) -> None:
    """The CA goes down when the first renewal is due, and comes back an hour before the first certificate ends."""
    lived = live_through(Course(change, ari=True, outage=True, nodes=1, lifetimes=2.0))

    require_green(lived)
    assert lived.down is not None
    begins, ends = lived.down
    lifetime = change.after.lifetime
    assert 0.9 * margin(lifetime) < ends - begins < 1.05 * margin(lifetime)


def require_green(lived: Lived) -> None:
    """Nothing expired, as many orders as are needed, and everything about the certificates as the CA has it by then."""
    change = lived.course.change
    assert lived.violation is None
    least, most = lived.expected()
    for name, issued in lived.issued.items():
        assert least <= len(issued) <= most, name
        for old, new in itertools.pairwise(issued):
            assert new.not_before < old.not_after, "nothing ends before the next one begins"
    assert lived.orders == sum(map(len, lived.issued.values()))
    last = [issued[-1] for issued in lived.issued.values()]
    assert {one.not_after - one.not_before for one in last} == {change.after.lifetime}
    assert all(bool(list(one.leaf.subject)) == change.after.common_name for one in last)
    # Where a validation is not good for as long as certificates are renewed after it, each renewal takes another.
    renewed_after = change.after.lifetime - margin(change.after.lifetime)
    if change.after.reuse < renewed_after:
        assert lived.fraction_validated() == 1.0
    else:
        assert lived.fraction_validated() < 0.8
