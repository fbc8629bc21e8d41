"""Checks of orders and authorizations from a CA before they are followed (RFC 8555 sections 7.1.3, 7.1.4).

This module knows what was ordered and what the CA answered; it must not ask the CA anything. If a CA answers with ten
thousand authorizations, or with those of other names, that order is given up.
"""

from collections.abc import Sequence

from acme import messages

from ..core.errors import Unfinished
from ..core.names import ServerName, parse_address, parse_server_name
from ..core.text import one_line

_MOST_CHALLENGES = 50
_LONGEST_TOKEN = 300  # bytes; RFC 8555 section 8 requires 16, and the token becomes part of a stored record
_OPEN = (messages.STATUS_PENDING, messages.STATUS_READY)


def require_order(ca: str, order: messages.Order, names: Sequence[ServerName]) -> None:
    """Raise ``Unfinished`` unless a new order is for ``names`` and can be completed.

    An invalid order passes: it may say why. Raises ``TypeError`` for fields of another type.
    """
    if order.identifiers is not None and {_name_of(identifier) for identifier in order.identifiers} != set(names):
        raise _refusal(ca, names, "is for other names")
    if order.status == messages.STATUS_INVALID:
        return
    if order.status not in _OPEN:
        status = order.status.name if order.status else "without a status"
        raise _refusal(ca, names, f"is {status} from the start")
    authorizations = _texts(order.authorizations)
    _texts((order.finalize,))
    if order.status == messages.STATUS_PENDING and not authorizations:
        raise _refusal(ca, names, "is pending and has no authorizations")
    if len(authorizations) > len(names):
        raise _refusal(ca, names, f"has {len(authorizations)} authorizations for {len(names)} names")


def require_authorization(ca: str, authorization: messages.Authorization, names: Sequence[ServerName]) -> None:
    """Raise ``Unfinished`` unless an authorization is for a name that was ordered, and can validate it.

    Raises ``TypeError`` for fields of another type.
    """
    if len(authorization.challenges) > _MOST_CHALLENGES:
        raise _refusal(ca, names, f"has an authorization with {len(authorization.challenges)} challenges")
    if any(len(getattr(body.chall, "token", b"")) > _LONGEST_TOKEN for body in authorization.challenges):
        raise _refusal(ca, names, "has a challenge whose token is too long")
    found = _name_of(authorization.identifier).removeprefix("*.")
    if found not in {name.removeprefix("*.") for name in names}:
        raise _refusal(ca, names, f"has an authorization for {one_line(found, 100)}")


def require_undecided(ca: str, authorization: messages.Authorization, names: Sequence[ServerName]) -> None:
    """Raise ``Unfinished`` if an authorization failed before we could prove anything, without a reason."""
    explained = any(challenge.error is not None for challenge in authorization.challenges)
    if authorization.status not in (messages.STATUS_PENDING, messages.STATUS_VALID) and not explained:
        status = authorization.status.name if authorization.status else "without a status"
        raise _refusal(ca, names, f"has an authorization that is {status} from the start")


def _refusal(ca: str, names: Sequence[ServerName], fault: str) -> Unfinished:
    return Unfinished(f"{ca} accepted the order for {one_line(', '.join(names))}, but it {fault}")


def _name_of(identifier: messages.Identifier) -> str:
    """Return an identifier in our spelling of names. Raises ``TypeError`` if it is invalid: it goes into the log."""
    text = str(identifier.value)
    name, wildcard = text.removeprefix("*."), text.startswith("*.")
    host = parse_server_name(name) or parse_address(name)
    if host is None:
        raise TypeError
    return f"*.{host}" if wildcard else host


def _texts(values: Sequence[object] | None) -> Sequence[object]:
    """Return ``values``. Raises ``TypeError`` unless all are text: the library accepts anything, even nothing."""
    if values is None or isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise TypeError
    return values
