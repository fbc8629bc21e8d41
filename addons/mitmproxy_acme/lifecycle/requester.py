"""Asker: for whom a certificate is obtained.

This module knows the kinds of them; it must not know what each of them may do.
"""

from enum import Enum


class Requester(Enum):
    """For whom a certificate is obtained: what bounds one order, and which failures before it count."""

    VISITOR = "visitor"  # a handshake: of a name that a stranger may have invented
    OPERATOR = "operator"  # the options, which list the name, or a renewal
    PERSON = "person"  # who says that it is to be tried now
