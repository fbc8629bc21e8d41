"""Rehearsal: a name that has failed is first ordered at its CA's staging directory, which has limits of its own.

This module knows when to rehearse, and what a failure there means; it must not know limits, backoffs, or which CA is
asked next.
"""

import asyncio
import logging

from acme_storage import StorageError

from ...core.errors import AcmeError, ChallengeFailed, IssuanceError, NameRefused, RecordRefused
from ...core.names import Subject
from ...core.structured_logging import fields
from ..configured_ca import ConfiguredCa
from .backoff_registry import BackoffRegistry

logger = logging.getLogger(__name__)

# Seconds. Staging is not run with the same care as the CA itself, which is asked when staging takes longer.
_PATIENCE = 60.0


class RehearsalFailed(Exception):
    """The name failed at the staging directory, as it would at the CA; ``error`` says how. The CA was not asked."""

    def __init__(self, error: IssuanceError) -> None:
        super().__init__(str(error))
        self.error = error


async def rehearse(ca: ConfiguredCa, subject: Subject, backoffs: BackoffRegistry) -> None:
    """Order at the staging directory of ``ca`` if the name has failed before; return if ``ca`` itself may be asked.

    It may be asked where it has no staging directory, and where the order there fails by a fault that is not the
    name's. Raises ``RehearsalFailed`` (with ``ChallengeFailed`` or ``NameRefused``), ``StorageError``. The certificate
    that staging issues is thrown away.
    """
    staging = ca.issuer.staging
    if staging is None or not backoffs.has_failed(subject):
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await staging.rehearse(subject)
    except TimeoutError:
        _log_skipped(subject, staging.name, "it takes too long")
    except IssuanceError as error:
        if _would_fail_at_the_ca(error):
            told = f"{error} (rehearsed at {staging.name})"
            failure = type(error)(told, problem=error.problem, retry_after=error.retry_after)
            raise RehearsalFailed(failure) from error
        _log_skipped(subject, staging.name, str(error))
    except RecordRefused as error:  # of the account there
        _log_skipped(subject, staging.name, str(error))
    except (AcmeError, StorageError):
        raise
    except Exception as error:  # a fault of this addon; the CA itself is asked all the same
        logger.exception("%s: the rehearsal failed by a fault of this addon", subject)
        _log_skipped(subject, staging.name, type(error).__name__)
    else:
        logger.info(
            "%s: rehearsed at %s; now %s is asked",
            subject,
            staging.name,
            ca.name,
            extra=fields("rehearsed", name=subject.id, ca=ca.name, staging=staging.name),
        )


def _would_fail_at_the_ca(error: IssuanceError) -> bool:
    """Say whether the fault is the name's own, and not our account's there, nor a CAA record for another CA."""
    problem = error.problem.type if error.problem else ""
    return isinstance(error, ChallengeFailed | NameRefused) and problem not in ("caa", "malformed")


def _log_skipped(subject: Subject, staging: str, reason: str) -> None:
    logger.info(
        "%s: not rehearsed at %s: %s",
        subject,
        staging,
        reason,
        extra=fields("rehearsal_left_out", name=subject.id, staging=staging, reason=reason),
    )
