"""What a run may cost the storage and the CAs.

Knows numbers of nodes, visits and CAs; must not know what the calls were for.
"""

from collections.abc import Callable, Sequence


def require_costs(
    require: Callable[[bool, str], None],
    storage_calls: int,
    ca_requests: int,
    seconds: float,
    roles: Sequence[str],
    cas: int,
    visits: int,
) -> None:
    """Storage and CAs are asked as often as there is reason to; control nodes read requests all the time."""
    nodes = len(roles)
    most_calls = (nodes * 4 + roles.count("control") * 5 + roles.count("data") * 5) * seconds + visits * 12 + 2_000
    require(storage_calls < most_calls, f"costs: {storage_calls} storage calls, at most {most_calls:.0f}")
    most_requests = cas * (nodes * seconds / 10 + visits * 6) + 500
    require(ca_requests < most_requests, f"costs: {ca_requests} CA requests, at most {most_requests:.0f}")
