"""Scenarios made by hand, for faults of the code that few seeds would find.

Knows what has to happen for each; must not know which fault it is for.
"""

from dataclasses import replace
from typing import Any

from .faults import Fault, FaultKind
from .scenario import Scenario

_PLAIN: dict[str, Any] = {"cas": 1, "staging": False, "ari": True, "lifetime": 1_200.0}

# The clock of one of two nodes is 50 days (1,200 hours) ahead, for longer than it has to go evenly.
AHEAD_FOR_LONG = replace(
    Scenario.of(1),
    **_PLAIN,
    roles=("standalone",) * 2,
    managed=1,
    on_demand=2,
    until=1_200.0,
    faults=(Fault(FaultKind.CLOCK_JUMP, at=100.0, seconds=1_000.0, node=0, name=0, amount=1_200.0),),
)

# That of the only node is, for less long.
AHEAD_FOR_A_WHILE = replace(
    AHEAD_FOR_LONG,
    roles=("standalone",),
    visits_every=2.0,
    until=400.0,
    faults=(Fault(FaultKind.CLOCK_JUMP, at=100.0, seconds=200.0, node=0, name=0, amount=1_200.0),),
)

# Of two nodes the first to order loses its lease while the CA is slow: both order, and the slower one writes last.
TWO_ORDERS = replace(
    Scenario.of(1),
    seed=2,
    **_PLAIN,
    roles=("standalone",) * 2,
    managed=1,
    on_demand=0,
    until=400.0,
    faults=(
        Fault(FaultKind.CA_SLOW, at=0.0, seconds=250.0, node=0, name=0, amount=0.5),
        Fault(FaultKind.PARTITION, at=6.0, seconds=60.0, node=1, name=0, amount=0.0),
    ),
)

# A node is paused when the CA has issued: its lease ends, the other node orders, and the first one stores last.
PAUSED = replace(
    TWO_ORDERS,
    seed=5,
    faults=(
        Fault(FaultKind.CA_SLOW, at=0.0, seconds=300.0, node=0, name=0, amount=0.5),
        Fault(FaultKind.PAUSE, at=42.0, seconds=100.0, node=0, name=0, amount=0.0),
    ),
)

_ONE_NAME = replace(
    Scenario.of(1),
    seed=0,
    **_PLAIN | {"lifetime": 900.0},
    roles=("standalone",),
    managed=1,
    on_demand=0,
    visits_every=2.0,
    until=1_300.0,
    faults=(),
)

# A managed certificate is deleted while its name cannot be validated.
DELETED_AND_FAILING = replace(
    _ONE_NAME,
    seed=1,
    faults=(
        Fault(FaultKind.NAME_FAILS, at=50.0, seconds=1_200.0, node=0, name=0, amount=0.0),
        Fault(FaultKind.PERSON_DELETES, at=100.0, seconds=0.0, node=0, name=0, amount=0.0),
    ),
)

# A name cannot be validated until its certificate has ended.
FAILING = replace(
    _ONE_NAME, faults=(Fault(FaultKind.NAME_FAILS, at=50.0, seconds=1_200.0, node=0, name=0, amount=0.0),)
)

# A storage comes back with what it had before the certificates were renewed.
RENEWED_AND_LOST = replace(
    _ONE_NAME,
    seed=3,
    managed=3,
    until=670.0,
    faults=(Fault(FaultKind.STORAGE_LOSES, at=610.0, seconds=6.0, node=0, name=0, amount=0.6),),
)

# An hour ahead, a node takes the certificate for expired and fails to renew it; no visitor comes meanwhile.
PUT_OFF = replace(
    _ONE_NAME,
    roles=("standalone",) * 2,
    visits_every=1e6,
    faults=(Fault(FaultKind.CLOCK_JUMP, at=100.0, seconds=200.0, node=0, name=0, amount=1.0),),
)

# The preferred CA is down until after the end of its certificate.
PREFERRED_IS_DOWN = replace(
    _ONE_NAME,
    cas=2,
    visits_every=1e6,
    faults=(Fault(FaultKind.CA_DOWN, at=300.0, seconds=990.0, node=0, name=0, amount=0.0),),
)

# The clock of a data node is a quarter of an hour ahead: it takes each certificate for expired.
DATA_NODE_AHEAD = replace(
    Scenario.of(1),
    seed=4,
    **_PLAIN | {"lifetime": 900.0},
    roles=("control", "data"),
    managed=3,
    on_demand=4,
    visits_every=2.0,
    until=700.0,
    faults=(Fault(FaultKind.CLOCK_JUMP, at=300.0, seconds=240.0, node=1, name=0, amount=0.25),),
)

# The clock is nearly an hour ahead at the start, while the CA is down; no visitor comes.
AHEAD_AT_THE_START = replace(
    _ONE_NAME,
    seed=5,
    visits_every=1e6,
    until=700.0,
    faults=(
        Fault(FaultKind.CLOCK_JUMP, at=0.0, seconds=150.0, node=0, name=0, amount=0.9),
        Fault(FaultKind.CA_DOWN, at=0.0, seconds=140.0, node=0, name=0, amount=0.0),
    ),
)

# The same beside a node whose clock is right: what the first one stores is not to keep the other waiting.
AHEAD_BESIDE_ANOTHER = replace(AHEAD_AT_THE_START, roles=("standalone",) * 2)

# When the first renewal is due, the CA issues for another name.
MISDELIVERED = replace(
    _ONE_NAME,
    seed=7,
    faults=(Fault(FaultKind.CA_MISDELIVERS, at=400.0, seconds=300.0, node=0, name=0, amount=0.1),),
)

# The clock is ahead by so much that each new certificate is due again at once.
AHEAD_BY_MOST_OF_A_LIFE = replace(
    _ONE_NAME,
    seed=6,
    lifetime=1_200.0,
    until=700.0,
    faults=(Fault(FaultKind.CLOCK_JUMP, at=100.0, seconds=300.0, node=0, name=0, amount=0.2),),
)
