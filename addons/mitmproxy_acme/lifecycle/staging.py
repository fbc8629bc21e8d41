"""Rehearsal: a name that has failed is first tried at its CA's staging directory, where nothing counts.

This module knows when that is worth it, and what its failure means; it must not know limits, backoffs, or who is asked
next.
"""

import asyncio
import logging

from acme_storage import StorageError

from ..core.errors import AcmeError, ChallengeFailed, IssuanceError, NameRefused, RecordRefused
from ..core.names import Subject
from ..core.structured_logging import fields
from .backoff_registry import BackoffRegistry
from .configured_ca import ConfiguredCa

logger = logging.getLogger(__name__)

# Staging is not looked after as the CA itself is: whatever keeps it, the CA itself is asked then.
_PATIENCE = 60.0


async def rehearse(ca: ConfiguredCa, subject: Subject, failures: BackoffRegistry) -> None:
    """Order at the staging directory of ``ca`` if the name has failed before, and return if ``ca`` may be asked itself.

    It may where there is no such directory, and where that one fails by a fault that is not the name's. Raises
    ``ChallengeFailed`` and ``NameRefused``, and ``StorageError``. What is issued there is thrown away.
    """
    staging = ca.issuer.staging
    if staging is None or not failures.has_failed(subject):
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await staging.rehearse(subject)
    except TimeoutError:
        _say_left_out(subject, staging.name, "it takes too long")
    except IssuanceError as error:
        if _would_fail_at_the_ca(error):
            told = f"{error} (rehearsed at {staging.name})"
            raise type(error)(told, problem=error.problem, retry_after=error.retry_after) from error
        _say_left_out(subject, staging.name, str(error))
    except RecordRefused as error:  # of the account there
        _say_left_out(subject, staging.name, str(error))
    except (AcmeError, StorageError):
        raise
    except Exception as error:  # whatever it is, it keeps no name from the CA itself
        logger.exception("%s: the rehearsal failed by a fault of this addon", subject)
        _say_left_out(subject, staging.name, type(error).__name__)
    else:
        logger.info(
            "%s: rehearsed at %s; now %s is asked",
            *(subject, staging.name, ca.name),
            extra=fields("rehearsed", name=subject.id, ca=ca.name, staging=staging.name),
        )


def _would_fail_at_the_ca(error: IssuanceError) -> bool:
    """Say whether it is the name's own fault, rather than our account's there, or that of a CAA record for another."""
    problem = error.problem.type if error.problem else ""
    return isinstance(error, ChallengeFailed | NameRefused) and problem not in ("caa", "malformed")


def _say_left_out(subject: Subject, staging: str, reason: str) -> None:
    logger.info(
        "%s: not rehearsed at %s: %s",
        *(subject, staging, reason),
        extra=fields("rehearsal_left_out", name=subject.id, staging=staging, reason=reason),
    )
