"""What each well-known CA is: its directory, and what it demands.

This module knows public facts about CAs (their own documentation, read in November 2026); it must not talk to them.
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
from .allowed_hosts import is_url
from .capabilities import Capabilities, Order


@dataclass(frozen=True, slots=True)
class CaInfo:
    """A CA by its directory URL (RFC 8555 section 7.1.1). ``needs_eab``: no account without external binding.

    ``binding_url`` is where it gives one to whoever has an e-mail address (``binding``).
    ``limits`` are those that it publishes; none where it publishes none.
    ``staging`` is the alias of the directory where orders can be rehearsed, if it takes an account without binding.
    ``caa`` are the names that it goes by in CAA records (RFC 8659 section 4.2), the one to write first.
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
        """Say whether a binding is to be had there for the entry's e-mail address, in the place of one of its own."""
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
# ZeroSSL has certificates for addresses by its own API alone, and SSL.com has none by ACME.
_WITHOUT_ADDRESSES = Capabilities(ip=False, public=True)
# Its free plan; whether it issues for addresses nobody says.
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
        adds_www=True,  # its free plan has certificates for one name and its www
    ),
}


def name_of(directory: str) -> str:
    """Return the alias of the CA at a directory URL; empty for one that has none."""
    return next((alias for alias, known in ALIASES.items() if known.directory == directory), "")


def is_public(directory: str) -> bool:
    """Say whether it is a CA that clients everywhere trust: those sign with intermediates (BR 6.1.7)."""
    return any(known.directory == directory and known.capabilities.public for known in ALIASES.values())


def additions(directory: str, names: Iterable[ServerName]) -> frozenset[str]:
    """Return the names that the CA is known to add by itself to a certificate for ``names``."""
    adds = any(known.directory == directory and known.adds_www for known in ALIASES.values())
    return frozenset(f"www.{name}" for name in names) if adds else frozenset()


def resolve_all(entries: Iterable[CaSettings]) -> tuple[CaInfo, ...]:
    """Return each of them, in their order. Raises ``ConfigError`` as ``resolve`` does, and for one that comes twice."""
    found: dict[str, str] = {}
    authorities = list[CaInfo]()
    for entry in entries:
        authority = resolve(entry)
        if (other := found.get(authority.directory)) is not None:
            raise ConfigError(f"acme_ca: {entry.ca} and {other} are the same CA; keep one of the entries")
        staging_of(entry)  # what is wrong with it is to be said at the start as well
        found[authority.directory] = entry.ca
        authorities.append(authority)
    return tuple(authorities)


def require_issuable(config: Config, authorities: Iterable[CaInfo]) -> None:
    """Raise ``ConfigError`` for a managed certificate that no CA of the options, resolved in their order, issues."""
    known = tuple(zip(config.issuers, authorities, strict=True))
    for subject in config.managed:
        lacks = [lack for entry, authority in known if (lack := reason_not_issued(config, entry, authority, subject))]
        if len(lacks) == len(known):
            raise ConfigError(f"acme_certificates: {subject} can be had of no CA: {'; '.join(dict.fromkeys(lacks))}")


def reason_not_issued(config: Config, entry: CaSettings, authority: CaInfo, subject: Subject) -> str:
    """Return why a CA of the options does not issue for ``subject``, as far as we know; nothing where it may."""
    try:
        authority.capabilities.require(order_for(config, entry, authority.capabilities, subject))
    except (NotOffered, SettingsRefused) as error:
        return str(error)
    return ""


def order_for(config: Config, entry: CaSettings, capabilities: Capabilities, subject: Subject) -> Order:
    """Return what would be ordered of a CA of the options."""
    profile = capabilities.profile(subject, entry.profile)
    return Order(entry.ca, subject, profile, config.challenges)


def staging_of(entry: CaSettings) -> tuple[CaSettings, CaInfo] | None:
    """Return the directory where orders to a CA are rehearsed, as an entry of its own; None where there is none.

    Raises ``ConfigError`` for one that is no CA, the CA itself, or one that takes no account as it is.
    """
    authority = resolve(entry)
    staging = entry.staging or authority.staging
    if staging in ("", "off"):
        return None
    beside = CaSettings(staging, ca_bundle=entry.ca_bundle, email=entry.email)
    found = ALIASES.get(staging) or resolve(beside)
    if found.directory == authority.directory:
        raise ConfigError(f"acme_ca: staging={staging} is {entry.ca} itself; name another directory, or write off")
    if found.needs_eab:
        raise ConfigError(f"acme_ca: staging={staging} takes no account without external account binding; write off")
    return beside, found


def resolve(entry: CaSettings) -> CaInfo:
    """Return the CA behind an alias, or behind a URL, which is taken as it is written; with the limits that apply.

    Raises ``ConfigError`` for an unknown alias, a URL that is not HTTPS (RFC 8555 section 6.1), and a CA whose
    external account binding is missing.
    """
    authority = _authority(entry)
    return dataclasses.replace(authority, limits=authority.limits.overridden(entry.limits))


def _authority(entry: CaSettings) -> CaInfo:
    authority = ALIASES.get(entry.ca)
    if authority is None:
        if not is_url(entry.ca):
            raise ConfigError(
                f"acme_ca: {entry.ca!r} is neither a known CA ({', '.join(ALIASES)}) "
                "nor the https:// URL of a directory"
            )
        known = next((known for known in ALIASES.values() if known.directory == entry.ca), CaInfo(entry.ca))
        # By a URL nothing is refused here: what we know may have grown old, or it is a CA of the operator's own.
        capabilities = Capabilities(ip_profile=known.capabilities.ip_profile)
        return dataclasses.replace(known, needs_eab=False, capabilities=capabilities)
    if authority.needs_eab and not entry.eab_kid and not authority.gives_binding(entry):
        given = "set acme_email, for which it gives one, or " if authority.binding_url else ""
        raise ConfigError(
            f"acme_ca: {entry.ca} takes no account without external account binding; {given}"
            "set acme_eab_kid and acme_eab_hmac_key to what its console gives, or write ;eab_kid=…;eab_hmac_key=… "
            "behind a CA that is not the first"
        )
    return authority
