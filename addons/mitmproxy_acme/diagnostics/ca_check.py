"""Check the CAs: whether each answers and accepts what the options say.

This module knows a CA's directory; it must not create anything there.
"""

import time
from collections.abc import Iterator, Sequence

from ..ca import directory_probe, known_cas
from ..ca.known_cas import CaInfo
from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.errors import AcmeError
from .finding import Finding, fail, passed, warn

_CLOCK_TOLERANCE = 60.0


def outages(cas: "Sequence[Ca]") -> Iterator[Finding]:
    """Report the inspected CAs that do not answer; another CA can replace them, if any answers."""
    well = next((ca.name for ca in cas if not ca._outage), "")
    for outage in (ca._outage for ca in cas if ca._outage):
        yield warn(f"{outage}; orders go to {well} meanwhile") if well else fail(outage)


class Ca:
    """A CA of the options; ``identities`` are its names in CAA records, as far as they are known."""

    def __init__(self, config: Config, entry: CaSettings) -> None:
        self._config = config
        self._entry = entry
        self.directory = ""
        self.identities: tuple[str, ...] = ()
        self._outage = ""

    @property
    def name(self) -> str:
        """Its name in findings, if there are several CAs."""
        return self._entry.ca

    def inspect(self) -> Iterator[Finding]:
        """Fetch its directory and compare the options with it; ``outages`` reports a failure to fetch it.

        Raises ``ConfigError`` for an entry that is no CA.
        """
        entry = self._entry
        label = "the CA" if len(self._config.issuers) == 1 else entry.ca
        ca_info = known_cas.resolve(entry)
        self.directory, self.identities = ca_info.directory, ca_info.caa
        try:
            directory = directory_probe.fetch(entry, time.time)
        except AcmeError as error:
            self._outage = str(error)
            return
        self.identities = self.identities or directory.caa_identities
        yield passed(f"the CA answers at {directory.url}")
        if directory.needs_eab and not entry.eab_kid and not ca_info.gives_binding(entry):
            yield fail(f"{label} accepts no account without acme_eab_kid and acme_eab_hmac_key")
        if entry.profile and entry.profile not in directory.profiles:
            offered = ", ".join(directory.profiles) or "none"
            yield fail(f"acme_profile: {label} does not offer {entry.profile!r}; it offers {offered}")
        yield from self._not_issued(ca_info)
        if directory.terms_of_service:
            yield self._terms(directory.terms_of_service)
        if directory.clock_ahead is not None and abs(directory.clock_ahead) > _CLOCK_TOLERANCE:
            way = "ahead of" if directory.clock_ahead > 0 else "behind"
            yield warn(
                f"the clock is {abs(directory.clock_ahead):.0f} s {way} {label}'s; set it, or validity is misjudged"
            )

    def _not_issued(self, ca_info: CaInfo) -> Iterator[Finding]:
        """Report what this CA does not issue, so that another CA must."""
        config, entry = self._config, self._entry
        for subject in config.managed:
            if reason := known_cas.reason_not_issued(config, entry, ca_info, subject):
                yield warn(f"acme_certificates: {subject}: {reason}")
        if config.ip_certificates and not ca_info.capabilities.ip:
            yield warn(
                f"acme_ip_certificates: {entry.ca} issues no certificates for addresses; add a CA to acme_ca that does"
            )

    def _terms(self, url: str) -> Finding:
        if self._config.tos_accepted:
            return passed(f"you accept its terms of service by acme_tos_accepted: {url}")
        return warn(f"acme_tos_accepted is not set: read {url}, then set it")
