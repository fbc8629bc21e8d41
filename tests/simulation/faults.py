"""What goes wrong, when, and for how long: drawn from a seed, as a list that can be cut shorter.

Knows kinds of faults; must not know how they are brought about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    STORAGE_DOWN = "storage down"  # for all nodes
    STORAGE_LOSES = "storage restarts and loses values"  # all, or the last ones
    PARTITION = "storage unreachable for a node"
    STORAGE_SLOW = "storage slow"
    STORAGE_FLAKY = "storage flaky"  # calls fail before or after they took effect
    CA_DOWN = "CA down"
    CA_SLOW = "CA slow"
    NAME_FAILS = "name cannot be validated"
    CRASH = "node crashes"  # at its next call to the storage or the CA
    CLOCK_JUMP = "clock jumps"
    REVOCATION = "CA revokes"  # and says so by ARI first
    PERSON_RENEWS = "person renews"
    PERSON_REVOKES = "person revokes"
    PERSON_DELETES = "person deletes"
    CA_MISDELIVERS = "CA misdelivers"  # certificates that clients would not accept
    PAUSE = "node is paused"  # as by SIGSTOP: it goes on in the middle of what it did, with leases that have ended


@dataclass(frozen=True, slots=True)
class Fault:
    """``at`` and ``seconds`` are virtual; ``node``, ``name``, ``ca`` count from 0; ``amount`` is what the kind says."""

    kind: FaultKind
    at: float
    seconds: float
    node: int
    name: int
    amount: float
    ca: int = 0

    def __str__(self) -> str:
        return (
            f"{self.at:9.3f} s  {self.kind.value} for {self.seconds:.1f} s "
            f"(node {self.node}, name {self.name}, amount {self.amount:.3f}, CA {self.ca})"
        )


_LONGEST = {
    FaultKind.STORAGE_DOWN: 90.0,
    FaultKind.STORAGE_LOSES: 30.0,
    FaultKind.PARTITION: 90.0,
    FaultKind.STORAGE_SLOW: 120.0,
    FaultKind.STORAGE_FLAKY: 120.0,
    FaultKind.CA_DOWN: 900.0,
    FaultKind.CA_SLOW: 600.0,
    FaultKind.NAME_FAILS: 900.0,
    FaultKind.CRASH: 60.0,  # until it starts again
    FaultKind.CLOCK_JUMP: 240.0,  # until it is set right
    FaultKind.CA_MISDELIVERS: 300.0,
    FaultKind.PAUSE: 60.0,
}
# Each of the later kinds is drawn apart, so that the others are the same in seeds from before it.
_FIRST = tuple(kind for kind in FaultKind if kind not in (FaultKind.CA_MISDELIVERS, FaultKind.PAUSE))


def draw_faults(
    random: Random,
    number: int,
    until: float,
    nodes: int,
    names: int,
    cas: int,
    kinds: Sequence[FaultKind] = _FIRST,
) -> list[Fault]:
    """Draw so many faults, in order of time."""
    faults = []
    for _ in range(number):
        kind = random.choice(kinds)
        longest = _LONGEST.get(kind, 0.0)
        faults.append(
            Fault(
                kind,
                at=random.uniform(0.0, until),
                seconds=random.uniform(0.0, longest),
                node=random.randrange(nodes),
                name=random.randrange(names),
                amount=random.uniform(-1.0, 1.0),
                ca=random.randrange(cas),
            )
        )
    return sorted(faults, key=lambda fault: fault.at)
