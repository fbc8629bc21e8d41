"""Failure scope: whether a failed order is the fault of the name, of the whole CA, or of this name at this CA.

This module knows errors by their class; it must not know what follows from a fault.
"""

from ...core.errors import (
    AccountUnusable,
    ClockDiffers,
    DeliveryRefused,
    IssuanceError,
    IssuerUnavailable,
    LimitReached,
    NotOffered,
    OfAnotherTime,
    RateLimited,
    SettingsRefused,
    Unfinished,
)

OF_ORDERS = Unfinished | DeliveryRefused
"""A CA fails so with the order for one name, though the fault may be the whole CA's."""
OF_THIS_NODE = SettingsRefused | AccountUnusable | NotOffered | OfAnotherTime | ClockDiffers
"""What the settings or the clock of this node may be to blame for: other nodes, and its next start, ask at once."""


def is_of_name(error: IssuanceError) -> bool:
    """Say whether the failure is the name's own: it would fail at every CA."""
    return not (is_of_ca(error) or is_at_one_ca(error))


def is_of_ca(error: IssuanceError) -> bool:
    """Say whether the whole CA backs off: it is down, or refuses our settings there."""
    return isinstance(error, IssuerUnavailable | SettingsRefused | AccountUnusable)


def is_at_one_ca(error: IssuanceError) -> bool:
    """Say whether only this CA backs off, and only for this name.

    A CAA record bars one CA (RFC 8659), and the next may be the one that it names.

    An order that is not finished is the CA's fault, but only this one may hang (a queue, an incident about one domain)
    while others are issued in seconds: a backoff of the whole CA would stop all of them. Where a second name hangs as
    well, the whole CA backs off: see ``BackoffRegistry._is_second``.
    """
    barred = error.problem is not None and error.problem.type == "caa"
    return barred or isinstance(error, RateLimited | LimitReached | NotOffered | OF_ORDERS)
