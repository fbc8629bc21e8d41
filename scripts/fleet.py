"""Write the tables and plots of docs/explanation/fleet.md: a million names, by the code's own arithmetic.

Started by ``scripts/simulate --fleet``. Knows which fleets are shown, and how; must not know how they are computed
(``tests/simulation/fleet.py``, ``fleet_costs.py``). The same code gives the same page on every machine.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from mitmproxy_acme.core.rate_limits import Limit
from tests.simulation.fleet import DAY, HOUR, Fleet, Told, live
from tests.simulation.fleet_costs import Costs, measure

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "fleet.md"
NAMES = 1_000_000
_STANDS_FOR = 500
_NODES = (3, 10, 1_000)
_LIFETIMES = (("45 days", 45 * DAY), ("160 hours", 160 * HOUR))
_FACTORS = (1.5, 2.0, 3.0)
# Milliseconds of one call, from the renewal passes of docs/measured.md: 123 calls in 49 ms, and so on.
_CALL_MS = {"file:": 49 / 123, "sqlite:": 52 / 123, "postgresql:": 72 / 122, "redis:": 27 / 123}
_DATA_NODES = 10  # control nodes of a fleet of a thousand


def write() -> int:
    """Compute everything, and write the page and the plots; return 0."""
    logging.getLogger("mitmproxy_acme").addHandler(logging.NullHandler())
    costs = measure()
    courses = [(life, True, nodes) for life in dict(_LIFETIMES) for nodes in _NODES]
    courses += [(life, False, 10) for life in dict(_LIFETIMES)]
    told = {course: live(_course(*course)) for course in courses}
    tables = {
        "costs": _cost_table(costs),
        "orders": _order_table(told),
        "limits": _limit_table(),
        "calls": _call_table(costs),
        "stores": _store_table(costs),
        "memory": _memory_table(),
    }
    page = PAGE.read_text()
    for name, table in tables.items():
        page = fill(page, name, table)
    PAGE.write_text(page)
    for life, file in (("45 days", "fleet-45.svg"), ("160 hours", "fleet-160h.svg")):
        curves = {f"ARI {'on' if ari else 'off'}": told[life, ari, 10].by_hour for ari in (True, False)}
        (PAGE.parent / file).write_text(plot(curves, f"Orders an hour, certificates of {life}, ten nodes"))
    print(f"{PAGE.name} and its plots are written")
    return 0


def fill(page: str, name: str, table: str) -> str:
    """Return the page with the table between the two comments of that name."""
    before, mark, rest = page.partition(f"<!-- {name} -->\n")
    return f"{before}{mark}\n{table}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def _course(life: str, ari: bool, nodes: int, names: int = NAMES, factor: float = 3.0) -> Fleet:
    """A fleet that meets an outage and a revocation; without ARI its limit is so many times the mean."""
    lifetime = dict(_LIFETIMES)[life]
    days, outage, length, revoked = (60, 10, 7.0, 35) if lifetime > 10 * DAY else (20, 4, 3.0, 14)
    return _fleet(lifetime, ari, nodes, days, (outage, length), revoked, factor, names)


def _fleet(
    lifetime: float,
    ari: bool,
    nodes: int,
    days: float,
    outage: tuple[float, float],
    revoked: float | None,
    factor: float,
    names: int,
) -> Fleet:
    calm = Fleet(names, lifetime, ari, nodes, DAY, None)
    begins, length = outage
    return Fleet(
        names,
        lifetime,
        ari,
        nodes,
        days * DAY,
        None if ari else Limit(int(factor * calm.needed_a_second * 3 * HOUR), 3 * HOUR),
        (begins * DAY, (begins + length) * DAY),
        revoked * DAY if revoked is not None else None,
        stands_for=min(_STANDS_FOR, max(names // 1_000, 1)),
    )


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cost_table(costs: Costs) -> str:
    return _rows(
        ("work", "storage calls"),
        (
            ("a node that does nothing, a second", f"{costs.idle:.2f}"),
            ("a data node that does nothing, a second", f"{costs.idle_data_node:.2f}"),
            ("a first order", f"{costs.order:.0f}"),
            ("a renewal", f"{costs.renewal:.0f}"),
            ("an attempt while the CA is down", f"{costs.attempt:.0f}"),
            ("a check of a name that is not due (every six hours)", f"{costs.check:.0f}"),
            ("the same, for each further node that orders", f"{costs.check_more:.0f}"),
        ),
    )


def _order_table(told: dict[tuple[str, bool, int], Told]) -> str:
    return _rows(
        (
            "certificates",
            "ARI",
            "nodes",
            "orders an hour: mean",
            "p99",
            "peak",
            "most waiting",
            "expired",
            "revoked tenth replaced: half, all after",
        ),
        [
            (
                life,
                "on" if ari else "off",
                f"{nodes:,}",
                f"{one.mean:,.0f}",
                f"{one.p99:,}",
                f"{one.peak:,}",
                f"{one.most_waiting:,}",
                f"{one.expired:,}",
                _replaced(one),
            )
            for (life, ari, nodes), one in told.items()
        ],
    )


def _replaced(told: Told) -> str:
    after = sorted(told.replaced_after)
    return f"{after[len(after) // 2] / HOUR:.1f} h, {after[-1] / HOUR:.0f} h"


def _limit_table() -> str:
    """What account limit survives the outage without ARI, and how many names the usual one renews."""
    rows = []
    for life, lifetime in _LIFETIMES:
        calm = Fleet(NAMES, lifetime, False, 10, DAY, None)
        held = int(300 / (3 * HOUR) * calm.names / calm.needed_a_second)
        survived = [
            f"{factor:g} times: {live(_course(life, False, 10, NAMES, factor)).expired:,}" for factor in _FACTORS
        ]
        rows.append((life, f"{calm.needed_a_second * 3 * HOUR:,.0f}", f"{held:,}", "; ".join(survived)))
    return _rows(
        (
            "certificates",
            "new orders in 3 hours, mean",
            "names that 300 in 3 hours renew",
            "names expired by the outage, with a limit of so many times the mean",
        ),
        rows,
    )


def _call_table(costs: Costs) -> str:
    rows = []
    for life, lifetime in _LIFETIMES:
        for nodes in _NODES:
            for ordering in sorted({nodes, min(nodes, _DATA_NODES)}):
                calls = calls_a_second(costs, Fleet(NAMES, lifetime, True, nodes, DAY, None), ordering)
                roles = "all order" if ordering == nodes else f"{ordering} control nodes, the others data nodes"
                rows.append((life, f"{nodes:,}", roles, *(f"{part:,.0f}" for part in calls), f"{sum(calls):,.0f}"))
    return _rows(("certificates", "nodes", "roles", "idle", "checks", "renewals", "storage calls a second"), rows)


def calls_a_second(costs: Costs, fleet: Fleet, ordering: int) -> tuple[float, float, float]:
    """Return the storage calls a second of idle nodes, of looks at names, and of renewals, with so many that order."""
    idle = ordering * costs.idle + (fleet.nodes - ordering) * costs.idle_data_node
    looks = fleet.names / (6 * HOUR) * (costs.check + (ordering - 1) * costs.check_more)
    return idle, looks, fleet.needed_a_second * costs.renewal


def _store_table(costs: Costs) -> str:
    fleet = Fleet(NAMES, 45 * DAY, True, 10, DAY, None)
    total = sum(calls_a_second(costs, fleet, 3)) / 3
    return _rows(
        ("storage", "one call", "calls a second of one thread", "threads busy on each of 3 nodes that order"),
        [
            (f"`{store}`", f"{ms:.2f} ms", f"{1_000 / ms:,.0f}", f"{total * ms / 1_000:.2f}")
            for store, ms in _CALL_MS.items()
        ],
    )


def _memory_table() -> str:
    """By docs/measured.md: 58 MB more with the first 5,000 names than at the start, and 2 MB with the next 5,000."""
    rows = [("acme_cache_size=10000, the default", "10,000"), ("each node holds all", f"{NAMES:,}")]
    per_name = {"10,000": 10_000, f"{NAMES:,}": NAMES}
    return _rows(
        ("names in memory", "names", "certificates, under 1 KiB each"),
        [(what, number, f"{per_name[number] / 1_024:,.0f} MiB") for what, number in rows],
    )


def plot(curves: dict[str, list[int]], title: str) -> str:
    """Return curves of numbers by hour as SVG; the axis of numbers is logarithmic, in powers of ten."""
    width, height, left, top = 720, 260, 60, 30
    hours = max(map(len, curves.values()))
    colours = ("#1f77b4", "#d62728")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<title>{title}</title><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18" font-size="13">{title}</text>',
    ]

    def y(number: float) -> float:
        levels = (
            len(str(int(number))) - 1 + (number / 10 ** (len(str(int(number))) - 1) - 1) / 9 if number >= 1 else 0.0
        )
        return height - 30 - levels / 5.0 * (height - top - 40)

    for power in range(6):
        line = y(10**power)
        parts.append(f'<path d="M{left} {line:.1f}H{width - 10}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{line + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for day in range(0, hours // 24 + 1, 5):
        x = left + day * 24 / hours * (width - left - 10)
        parts.append(f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle">day {day}</text>')
    for number, (name, values) in enumerate(curves.items()):
        step = max(hours // 360, 1)
        points = " ".join(
            f"{left + hour / hours * (width - left - 10):.1f},{y(max(values[hour : hour + step])):.1f}"
            for hour in range(0, len(values), step)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[number]}" stroke-width="1.2"/>')
        parts.append(f'<text x="{width - 150 + 75 * number}" y="18" fill="{colours[number]}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
