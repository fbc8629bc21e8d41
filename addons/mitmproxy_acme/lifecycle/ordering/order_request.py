"""What is to be ordered, and who wants it.

This module knows the kinds of requesters; it must not know what each of them may do.
"""

from dataclasses import dataclass
from enum import Enum

from ...core.certificate import Certificate
from ...core.names import Subject


class Requester(Enum):
    """Who wants a certificate. It decides what limits the order, and which earlier failures count."""

    VISITOR = "visitor"  # a handshake, for a name that a stranger may have invented
    OPERATOR = "operator"  # the options, which list the name, or a renewal
    PERSON = "person"  # somebody who asks for an attempt now


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A certificate for ``subject`` that is not ``replacing``; ``client`` is the address of a ``VISITOR``."""

    subject: Subject
    requester: Requester
    replacing: Certificate | None = None
    client: str | None = None

    @property
    def is_new_name(self) -> bool:
        """Whether only a visitor wants it, and the name has no certificate yet."""
        return self.requester is Requester.VISITOR and self.replacing is None
