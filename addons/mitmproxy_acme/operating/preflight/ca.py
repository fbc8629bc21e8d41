"""The CA: whether it answers, and takes what the options say.

This module knows the CA's directory; it must not create anything there.
"""

import time
from collections.abc import Iterator

from ...config import Config
from ...errors import AcmeError
from ...issuing import authorities, probe
from .finding import Finding, fail, passed, warn

_CLOCK_TOLERANCE = 60.0


class Ca:
    """The CA of the options; ``identities`` are the names that it goes by in CAA records, as far as they are known."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.identities: tuple[str, ...] = ()

    def inspect(self) -> Iterator[Finding]:
        """Fetch its directory, and hold the options against it."""
        try:
            self.identities = authorities.resolve(self._config.issuer).caa
            directory = probe.look_at(self._config, time.time())
        except AcmeError as error:
            yield fail(str(error))
            return
        self.identities = self.identities or directory.caa_identities
        yield passed(f"the CA answers at {directory.url}")
        issuer = self._config.issuer
        if directory.needs_eab and not issuer.eab_kid:
            yield fail("the CA takes no account without acme_eab_kid and acme_eab_hmac_key")
        if issuer.profile and issuer.profile not in directory.profiles:
            offered = ", ".join(directory.profiles) or "none"
            yield fail(f"acme_profile: the CA does not offer {issuer.profile!r}; it offers {offered}")
        if directory.terms_of_service:
            yield self._terms(directory.terms_of_service)
        if directory.clock_ahead is not None and abs(directory.clock_ahead) > _CLOCK_TOLERANCE:
            way = "ahead of" if directory.clock_ahead > 0 else "behind"
            yield warn(
                f"the clock is {abs(directory.clock_ahead):.0f} s {way} the CA's; set it, or validity is misjudged"
            )

    def _terms(self, url: str) -> Finding:
        if self._config.tos_accepted:
            return passed(f"its terms of service, which acme_tos_accepted accepts, are at {url}")
        return warn(f"acme_tos_accepted is not set: read {url}, then set it")
