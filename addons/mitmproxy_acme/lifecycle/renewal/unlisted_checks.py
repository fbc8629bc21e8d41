"""Unlisted checks: certificates that are overdue in memory, and that the renewal schedule does not list.

A node whose clock is wrong may have moved an entry years ahead (seen in the simulator), or a crash lost it. This module
knows which of them to check, and how often; it must not know how a certificate is renewed.
"""

from collections.abc import Iterable

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.lru_cache import LruCache
from ...core.names import ServerName
from ...store.renewal_schedule import ScheduledCheck
from ..client_usage import ClientUsage
from ..ordering.backoff_registry import BackoffRegistry

# The part of its lifetime after which such a certificate is checked again, and the least wait in seconds: nearly two
# days for one of 90.
_AGAIN_PART, _LEAST_WAIT = 0.02, 60.0


class UnlistedChecks:
    """Finds the checks that one node adds to those of the schedule. Use it from one event loop."""

    def __init__(self, config: Config, backoffs: BackoffRegistry, clients: ClientUsage) -> None:
        self._config = config
        self._backoffs = backoffs
        self._clients = clients
        self._again_at: LruCache[ServerName, float] = LruCache(config.cache_size)  # Unix seconds

    def find(
        self, overdue: Iterable[Certificate], listed: Iterable[ScheduledCheck], now: float
    ) -> list[ScheduledCheck]:
        """Return a check, due ``now`` (Unix seconds), for each of ``overdue`` that ``listed`` does not have.

        Most of them are overdue for a reason, such as a later window of the CA: each is returned now and then only.
        """
        ids = {entry.id for entry in listed}
        found = [certificate for certificate in overdue if certificate.id not in ids and self._begins(certificate, now)]
        for certificate in found:
            self._again_at.put(certificate.id, now + _wait(certificate))
        return [ScheduledCheck(certificate.id, now) for certificate in found]

    def _begins(self, certificate: Certificate, now: float) -> bool:
        """Say whether nothing speaks against a check: an earlier one, the options, no client, a backoff."""
        subject = self._config.subject(certificate.id)
        left = (self._again_at.get(certificate.id) or 0.0) - now
        # A longer one is from before the clock was set back: the certificate ended meanwhile (seen in the simulator).
        waits = 0 < left <= _wait(certificate)
        if subject is None or waits or self._may_be_idle(certificate):
            return False
        self._backoffs.note_served(subject, certificate.not_after)
        return self._backoffs.active_backoff(subject) is None

    def _may_be_idle(self, certificate: Certificate) -> bool:
        """Say whether no client may have asked for it: then it is overdue because it is left to its end."""
        if not self._config.lets_idle_expire or self._config.manages(certificate.id):
            return False
        return not self._clients.has_asked(certificate)


def _wait(certificate: Certificate) -> float:
    return max(certificate.lifetime * _AGAIN_PART, _LEAST_WAIT)
