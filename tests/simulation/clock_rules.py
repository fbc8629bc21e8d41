"""What must hold while the clock of a node is wrong: it must not use up the CA's limits, which all nodes share.

Knows certificates, and by how much a clock is wrong; must not know how it came to be, or what else goes wrong.
"""

from collections import defaultdict
from collections.abc import Callable

from mitmproxy_acme.core.certificate import Certificate

# Seconds. A clock that is less wrong is right.
_WRONG = 60.0
# Certificates for a name that a process may obtain by one wrong clock within a fifth of their life: one before it knows
# how long they last, and one that it could use.
_MOST = 2
_WITHIN = 0.2


class WrongClocks:
    """Counts what is issued to nodes whose clocks are wrong; ``require`` raises a ``Violation``."""

    def __init__(self, require: Callable[[bool, str], None], true_time: Callable[[], float]) -> None:
        self._require = require
        self._true_time = true_time
        self._issued = defaultdict[tuple[object, str, str, float], list[float]](list)

    def issued(self, process: object, certificate: Certificate, ahead: float) -> None:
        """A certificate is issued to a process whose clock is ``ahead`` (seconds)."""
        if abs(ahead) < _WRONG:
            return
        now, life = self._true_time(), certificate.not_after - certificate.not_before
        times = self._issued[process, certificate.ca, certificate.id, ahead]
        times.append(now)
        recent = [at for at in times if now - at < _WITHIN * life]
        self._require(
            len(recent) <= _MOST,
            f"a wrong clock uses up little: {ahead:.0f} s ahead, a node obtained {len(recent)} certificates for "
            f"{certificate.id} in {now - recent[0]:.0f} s",
        )
