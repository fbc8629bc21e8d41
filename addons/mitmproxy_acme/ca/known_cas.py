"""What each well-known CA is: its directory, and what it requires.

This module knows public facts about CAs (from their documentation, read in November 2026); it must not talk to them.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.errors import ConfigError, NotOffered, SettingsRefused
from ..core.names import ServerName, Subject
from ..core.rate_limits import Limit, Limits
from ..core.renewal import DAY
from .capabilities import Capabilities, Order
from .http.allowed_hosts import is_url


@dataclass(frozen=True, slots=True)
class CaInfo:
    """A CA by its directory URL (RFC 8555 section 7.1.1). ``needs_eab``: it requires an external account binding.

    ``binding_url`` is where it gives one for an e-mail address (``external_account_binding``).
    ``limits`` are the rate limits that it publishes, if any.
    ``staging`` is the alias of a directory for rehearsals, if that accepts accounts without binding.
    ``caa`` are its names in CAA records (RFC 8659 section 4.2), the preferred one first.
    ``capabilities`` are what it issues. ``adds_www``: it adds the ``www`` of a name to its certificate unasked.
    """

    directory: str
    needs_eab: bool = False
    binding_url: str = ""
    limits: Limits = field(default_factory=Limits)
    staging: str = ""
    caa: tuple[str, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    adds_www: bool = False

    def gives_binding(self, entry: CaSettings) -> bool:
        """Say whether the CA gives a binding for the entry's e-mail address, which has none of its own."""
        return bool(self.binding_url and entry.email and not entry.eab_kid)


# https://letsencrypt.org/docs/rate-limits/, as of August 2026. Its staging has others, far higher.
_LETSENCRYPT = Limits(
    orders=Limit(300, 3 * 3_600.0),
    certificates_per_domain=Limit(50, 7 * DAY),
    duplicates=Limit(5, 7 * DAY),
    failed_validations=Limit(5, 3_600.0),
)

# https://letsencrypt.org/docs/profiles/, as of July 2026, and https://letsencrypt.org/docs/integration-guide/.
_AT_LETSENCRYPT = Capabilities(
    ip_profile="shortlived",
    profiles=("classic", "tlsserver", "shortlived"),
    key_types=("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096"),
    public=True,
)
# https://pki.goog/faq/#faq-IPCerts
_AT_GOOGLE = Capabilities(public=True)
# ZeroSSL issues for addresses by its own API only, and SSL.com not by ACME.
_WITHOUT_ADDRESSES = Capabilities(ip=False, public=True)
# Its free plan; it is not documented whether it issues for addresses.
_AT_ACTALIS = Capabilities(wildcard=False, public=True)

ALIASES = {
    "letsencrypt": CaInfo(
        "https://acme-v02.api.letsencrypt.org/directory",
        limits=_LETSENCRYPT,
        staging="letsencrypt-staging",
        caa=("letsencrypt.org",),
        capabilities=_AT_LETSENCRYPT,
    ),
    "letsencrypt-staging": CaInfo(
        "https://acme-staging-v02.api.letsencrypt.org/directory", caa=("letsencrypt.org",), capabilities=_AT_LETSENCRYPT
    ),
    "zerossl": CaInfo(
        "https://acme.zerossl.com/v2/DV90",
        needs_eab=True,
        binding_url="https://api.zerossl.com/acme/eab-credentials-email",
        caa=("sectigo.com",),
        capabilities=_WITHOUT_ADDRESSES,
    ),
    "google": CaInfo(
        "https://dv.acme-v02.api.pki.goog/directory", needs_eab=True, caa=("pki.goog",), capabilities=_AT_GOOGLE
    ),
    "google-staging": CaInfo(
        "https://dv.acme-v02.test-api.pki.goog/directory", needs_eab=True, caa=("pki.goog",), capabilities=_AT_GOOGLE
    ),
    "sslcom": CaInfo(
        "https://acme.ssl.com/sslcom-dv-ecc", needs_eab=True, caa=("ssl.com",), capabilities=_WITHOUT_ADDRESSES
    ),
    "actalis": CaInfo(
        "https://acme-api.actalis.com/acme/directory",
        needs_eab=True,
        caa=("actalis.it",),
        capabilities=_AT_ACTALIS,
        adds_www=True,  # its free plan issues for one name and its www
    ),
}


def alias_of(directory: str) -> str:
    """Return the alias of the CA at a directory URL; empty if it has none."""
    return next((alias for alias, known in ALIASES.items() if known.directory == directory), "")


def is_public(directory: str) -> bool:
    """Say whether clients everywhere trust the CA: such CAs sign with intermediates (BR 6.1.7)."""
    return any(known.directory == directory and known.capabilities.public for known in ALIASES.values())


def additions(directory: str, names: Iterable[ServerName]) -> frozenset[str]:
    """Return the names that the CA is known to add by itself to a certificate for ``names``."""
    adds = any(known.directory == directory and known.adds_www for known in ALIASES.values())
    return frozenset(f"www.{name}" for name in names) if adds else frozenset()


def resolve_all(entries: Iterable[CaSettings]) -> tuple[CaInfo, ...]:
    """Return each CA, in order. Raises ``ConfigError`` as ``resolve`` does, and for a CA that is listed twice."""
    found: dict[str, str] = {}
    ca_infos = list[CaInfo]()
    for entry in entries:
        ca_info = resolve(entry)
        if (other := found.get(ca_info.directory)) is not None:
            raise ConfigError(f"acme_ca: {entry.ca} and {other} are the same CA; keep one of the entries")
        staging_of(entry)  # report what is wrong with it at the start
        found[ca_info.directory] = entry.ca
        ca_infos.append(ca_info)
    return tuple(ca_infos)


def require_issuable(config: Config, ca_infos: Iterable[CaInfo]) -> None:
    """Raise ``ConfigError`` for a managed certificate that no configured CA issues; both sequences have one order."""
    known = tuple(zip(config.issuers, ca_infos, strict=True))
    for subject in config.managed:
        reasons = [reason for entry, ca_info in known if (reason := reason_not_issued(config, entry, ca_info, subject))]
        if len(reasons) == len(known):
            why = "; ".join(dict.fromkeys(reasons))
            raise ConfigError(f"acme_certificates: no configured CA issues a certificate for {subject}: {why}")


def reason_not_issued(config: Config, entry: CaSettings, ca_info: CaInfo, subject: Subject) -> str:
    """Return why a configured CA does not issue for ``subject``, as far as is known; empty if it may."""
    try:
        ca_info.capabilities.require(order_for(config, entry, ca_info.capabilities, subject))
    except (NotOffered, SettingsRefused) as error:
        return str(error)
    return ""


def order_for(config: Config, entry: CaSettings, capabilities: Capabilities, subject: Subject) -> Order:
    """Return what would be ordered at a configured CA."""
    profile = capabilities.profile(subject, entry.profile)
    return Order(entry.ca, subject, profile, config.challenges)


def staging_of(entry: CaSettings) -> tuple[CaSettings, CaInfo] | None:
    """Return the directory where orders to a CA are rehearsed, as an entry of its own; None if there is none.

    Raises ``ConfigError`` if that is no CA, the CA itself, or one that requires an external account binding.
    """
    ca_info = resolve(entry)
    staging = entry.staging or ca_info.staging
    if staging in ("", "off"):
        return None
    rehearsal = CaSettings(staging, ca_bundle=entry.ca_bundle, email=entry.email)
    found = ALIASES.get(staging) or resolve(rehearsal)
    if found.directory == ca_info.directory:
        raise ConfigError(
            f"acme_ca: staging={staging} is {entry.ca} itself; name another directory, or write staging=off"
        )
    if found.needs_eab:
        raise ConfigError(
            f"acme_ca: staging={staging} requires an external account binding, which rehearsals do not have; "
            "write staging=off"
        )
    return rehearsal, found


def resolve(entry: CaSettings) -> CaInfo:
    """Return the CA of an alias or a URL, with the limits that apply.

    Raises ``ConfigError`` for an unknown alias, a URL that is not HTTPS (RFC 8555 section 6.1), and a missing external
    account binding.
    """
    ca_info = _ca_info(entry)
    return dataclasses.replace(ca_info, limits=ca_info.limits.overridden(entry.limits))


def _ca_info(entry: CaSettings) -> CaInfo:
    ca_info = ALIASES.get(entry.ca)
    if ca_info is None:
        if not is_url(entry.ca):
            raise ConfigError(
                f"acme_ca: {entry.ca!r} is neither a known CA ({', '.join(ALIASES)}) "
                "nor the https:// URL of a directory"
            )
        known = next((known for known in ALIASES.values() if known.directory == entry.ca), CaInfo(entry.ca))
        # Nothing is refused by URL: what we know may be out of date, or it is a CA of the operator's own.
        capabilities = Capabilities(ip_profile=known.capabilities.ip_profile)
        return dataclasses.replace(known, needs_eab=False, capabilities=capabilities)
    if ca_info.needs_eab and not entry.eab_kid and not ca_info.gives_binding(entry):
        given = "set acme_email, for which the CA gives one, or " if ca_info.binding_url else ""
        raise ConfigError(
            f"acme_ca: {entry.ca} requires an external account binding; {given}"
            "set acme_eab_kid and acme_eab_hmac_key to the values from its console, or append "
            ";eab_kid=…;eab_hmac_key=… to a CA that is not the first"
        )
    return ca_info
