"""Whose fault a failed order is: the name's, the CA's as a whole, or one that this name has at this CA.

This module knows errors by their class; it must not know what follows from a fault.
"""

from ..core.errors import (
    AccountUnusable,
    DeliveryRefused,
    IssuanceError,
    IssuerUnavailable,
    LimitReached,
    NotOffered,
    RateLimited,
    SettingsRefused,
    Unfinished,
)

OF_ORDERS = Unfinished | DeliveryRefused
"""What a CA makes of the order for one name, though it may be the CA as a whole that has a fault."""


def is_of_name(error: IssuanceError) -> bool:
    """Say whether the failure is the name's own, which no other CA would mend."""
    return not (is_of_ca(error) or is_at_one_ca(error))


def is_of_ca(error: IssuanceError) -> bool:
    """Say whether the CA as a whole is to be left alone: it is down, or refuses our settings there."""
    return isinstance(error, IssuerUnavailable | SettingsRefused | AccountUnusable)


def is_at_one_ca(error: IssuanceError) -> bool:
    """Say whether only this CA is to be left alone for this name.

    A CAA record bars one CA (RFC 8659), and the next may be the one that it names.

    An order that does not come to an end is the CA's trouble, but it may hang on this one (a queue, an incident about
    one domain) where others are issued in seconds: to leave the whole CA alone for it would take it from all of them.
    Where another one hangs as well, it does not: see ``BackoffRegistry._is_second``.
    """
    barred = error.problem is not None and error.problem.type == "caa"
    return barred or isinstance(error, RateLimited | LimitReached | NotOffered | OF_ORDERS)
