"""What a seed stands for: the nodes, the names, the CAs, and what goes wrong.

Knows what may be drawn, and how a failing run is shrunk; must not know how anything is run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from mitmproxy_acme.core.rate_limits import Limit, Limits

from .faults import Fault, FaultKind, draw_faults

DAY = 86_400.0
# Seconds. The profiles of a CA: such a certificate is stored before the run, and is due in it.
PROFILES = (160 * 3_600.0, 45 * DAY, 90 * DAY)
_SHORT = (900.0, 1_200.0, 1_800.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed stands for. ``faults`` may be cut; nothing else depends on their number.

    ``roles`` has one for each node. With ``staging`` each of the ``cas`` has a staging directory. A ``profile`` is the
    lifetime of certificates that are due in the run; others live as long as they are drawn to.
    """

    seed: int
    roles: tuple[str, ...]
    managed: int
    on_demand: int
    lifetime: float
    ari: bool
    cas: int
    staging: bool
    limits: Limits
    visits_every: float
    until: float  # seconds; faults begin in the first part only
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        random = Random(f"scenario {seed}")
        roles, managed, on_demand = _draw_roles(random), random.randint(1, 3), random.randint(0, 4)
        lifetime = random.choice(PROFILES if random.random() < 0.25 else _SHORT)
        faulty = random.uniform(300.0, 1.2 * (_SHORT[0] if lifetime in PROFILES else lifetime))
        number = random.choice((0, 1, 2, 4, 8))
        cas = random.choice((1, 1, 1, 2, 3))
        drawn = faulty, len(roles), managed + on_demand, cas
        pausing = Random(f"pauses {seed}")
        pauses = draw_faults(pausing, pausing.choice((0, 0, 0, 1, 2)), *drawn, kinds=(FaultKind.PAUSE,))
        delivering = Random(f"deliveries {seed}")
        junk = draw_faults(delivering, delivering.choice((0, 0, 0, 1)), *drawn, kinds=(FaultKind.CA_MISDELIVERS,))
        return cls(
            seed,
            roles,
            managed,
            on_demand,
            lifetime,
            ari=random.random() < 0.5,
            cas=cas,
            staging=random.random() < 0.4,
            limits=random.choice((Limits(), Limits(orders=Limit(30, 600.0), duplicates=Limit(5, 1_200.0)))),
            visits_every=random.choice((2.0, 5.0, 20.0)),
            until=faulty + 300.0 + 0.6 * min(lifetime, _SHORT[-1]),
            faults=(*draw_faults(random, number, *drawn), *pauses, *junk),
        )

    @property
    def is_profile(self) -> bool:
        return self.lifetime in PROFILES


def _draw_roles(random: Random) -> tuple[str, ...]:
    nodes = random.randint(1, 3)
    if nodes == 1 or random.random() < 0.65:
        return ("standalone",) * nodes
    return "control", "data", *(random.choice(("control", "data")) for _ in range(nodes - 2))


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return the scenario with as few faults as still fail, one by one and by halves."""
    faults: Sequence[Fault] = scenario.faults
    size = max(len(faults) // 2, 1)
    while faults and size:
        for start in range(0, len(faults), size):
            fewer = (*faults[:start], *faults[start + size :])
            if fails(_with(scenario, fewer)):
                faults = fewer
                break
        else:
            size //= 2
    return _with(scenario, tuple(faults))


def _with(scenario: Scenario, faults: Sequence[Fault]) -> Scenario:
    return replace(scenario, faults=tuple(faults))
