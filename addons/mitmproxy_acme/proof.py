"""A proof of control: what a CA must find to validate a name (RFC 8555 section 8).

This module knows the value; it must not know how it is computed, kept or shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proof:
    """``type`` is the challenge's (``http-01``, …), ``place`` where the CA looks (a token, a name).

    ``value`` is what it must find. ``place`` is fit for a storage key; none of it is secret.
    """

    type: str
    place: str
    value: str
