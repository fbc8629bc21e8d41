"""Config: what the options mean, as one frozen value that is checked as a whole.

This module knows every rule about an option's value; it must not know mitmproxy, storage or a CA. It reads each secret
that an option refers to, once, and touches nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..core.backoff import BackoffSchedule
from ..core.challenge_domains import parse_zone, require_challenge_in_dns
from ..core.dns_server import DnsServer
from ..core.errors import ConfigError
from ..core.host_policy import HostPolicy
from ..core.key_types import kind_of, mark_of, parse_key_types, split
from ..core.names import (
    ServerName,
    Subject,
    covering_wildcard,
    is_address,
    is_global,
    is_ipv6,
    is_wildcard,
    parse_host,
    wildcard,
)
from ..core.proof import TXT_TYPES
from ..core.renewal import RenewBefore
from .admin_settings import AdminListen, parse_operation, require_admin_token
from .ca_settings import CaSettings, parse_email, parse_entries
from .keep_expired import parse_keep_expired
from .managed_certificates import parse_managed, public_addresses
from .option_values import choice, http_url, positive, require_known
from .options import OPTIONS
from .orders_per_client import OrdersPerClient
from .secret_references import read_secret
from .storage_settings import parse_storage
from .upstreams import UpstreamRules, require_token_behind

CHALLENGES = ("http-01", "tls-alpn-01", "dns-01", "dns-account-01", "dns-persist-01")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the options decide.

    ``issuers`` are the entries of ``acme_ca``, the preferred CA first; ``keep_expired`` is in seconds, None for ever;
    ``secret_variables`` are the environment variables that options refer to; ``warnings`` are sentences to log once per
    configuration.
    """

    policy: HostPolicy
    ask: str = field(repr=False)  # its query may hold a token
    managed: tuple[Subject, ...]
    ip_certificates: bool
    on_demand: str
    handshake_wait: float
    fallback: str
    unknown_names: str
    issuers: tuple[CaSettings, ...]
    email: str
    tos_accepted: bool
    account_key: str = field(repr=False)
    challenges: tuple[str, ...]
    dns_zone: str
    dns_nameservers: tuple[str, ...]
    dns_provider: str
    dns_resolvers: tuple[DnsServer, ...]
    key_types: tuple[str, ...]
    renew_before: RenewBefore
    keep_expired: float | None
    idle: bool
    fail_backoff: BackoffSchedule
    orders_per_client: OrdersPerClient
    storage: str = field(repr=False)
    storage_keys: tuple[str, ...] = field(repr=False)
    account_storage_keys: tuple[str, ...] = field(repr=False)
    storage_sealed_only: bool
    role: str
    tls_profile: str
    challenge_passthrough: bool
    upstreams: UpstreamRules
    lazy: bool
    cache_size: int
    admin: AdminListen | None
    admin_token: str = field(repr=False)
    webhook: str = field(repr=False)
    webhook_key: bytes = field(repr=False)
    deploy_hook: tuple[str, ...]
    secret_variables: frozenset[str]
    hide_challenges: bool
    log_format: str
    warnings: tuple[str, ...] = ()
    _managed_by_name: Mapping[ServerName, Subject] = field(default_factory=dict, repr=False)
    _public_addresses: Mapping[bool, ServerName] = field(default_factory=dict, repr=False)  # by "is it IPv6"

    @classmethod
    def from_options(cls, values: Mapping[str, Any] | None = None) -> Self:
        """Read the options by name; missing ones have their defaults.

        Raises ``ConfigError`` with one sentence that names the option, what is wrong and what would be right.
        """
        given = {option.name: option.default for option in OPTIONS} | dict(values or {})
        warnings: list[str] = []
        challenges = _challenges(given["acme_challenges"])
        key_types = parse_key_types(given["acme_key_type"])
        managed = parse_managed(given["acme_certificates"], challenges, key_types)
        config = cls(
            policy=HostPolicy.parse(
                given["acme_domains"], any_domain=given["acme_allow_any_domain"] or _ask_decides(given)
            ),
            ask=http_url("acme_ask", given["acme_ask"]),
            managed=managed,
            ip_certificates=given["acme_ip_certificates"],
            **_for_handshakes(given),
            **_for_cas(given, warnings),
            challenges=challenges,
            **_for_dns(given),
            key_types=key_types,
            **_for_renewal(given),
            orders_per_client=OrdersPerClient.parse(given["acme_orders_per_client"]),
            **parse_storage(given, warnings),
            challenge_passthrough=given["acme_challenge_passthrough"],
            upstreams=UpstreamRules.parse(given["acme_upstreams"]),
            cache_size=positive(given, "acme_cache_size"),
            **parse_operation(given, warnings),
            warnings=tuple(dict.fromkeys(warnings)),
            _managed_by_name={key: subject for subject in managed for key in subject.lookup_keys},
            _public_addresses=public_addresses(managed),
        )
        _require_terms(config)
        _require_names(config)
        require_challenge_in_dns(config.challenges, zone=config.dns_zone, provider=config.dns_provider)
        require_admin_token(config.admin, config.admin_token)
        require_token_behind(config.upstreams, config.admin, config.admin_token)
        return config

    @property
    def active(self) -> bool:
        """Whether any name may have a certificate: if no option allows one, the addon does nothing."""
        return bool(self.managed) or bool(self.policy) or self.ip_certificates

    @property
    def orders(self) -> bool:
        """Whether this node talks to a CA; a data node asks a control node instead."""
        return self.role != "data"

    @property
    def lets_idle_expire(self) -> bool:
        """Whether a name that no client asks for is not renewed: only if the next client has it obtained again."""
        return self.idle and self.on_demand != "off"

    @property
    def answers_dns(self) -> bool:
        """Whether this proxy is the nameserver of DNS challenges (mode dns)."""
        return not self.dns_provider and not TXT_TYPES.isdisjoint(self.challenges)

    def is_managed(self, name: ServerName) -> bool:
        """Say whether ``acme_certificates`` lists it, or a wildcard that covers it."""
        return self._managed(name) is not None

    def manages(self, id: ServerName) -> bool:
        """Say whether ``id`` is that of a managed certificate itself, not of a name that one covers."""
        subject = self._managed(id)
        return subject is not None and subject.id == id

    def address_for(self, reached: ServerName) -> ServerName | None:
        """Return the address that a client without SNI means (RFC 8738); None if it may have no certificate.

        Behind NAT the client reached a private address: it then means the first managed public address of the same
        kind.
        """
        public = self._public_addresses.get(is_ipv6(reached))
        if public is not None and not self.is_managed(reached) and not is_global(reached):
            return public
        return reached if self.subject(reached) is not None else None

    def subject(self, id: ServerName) -> Subject | None:
        """Return what the certificate for an id is for; None if it may have none.

        A managed certificate for exactly this name comes first, then a managed wildcard, which covers one label (RFC
        6125 section 6.4.3), then one on demand, which is never a wildcard. ``acme_domains`` does not decide about
        addresses. An unmarked id means the preferred kind of key, a marked one (``id_for``) the other kind; None if
        that kind is not served.
        """
        if managed := self._managed(id):
            return managed
        text, mark = split(id)
        name, key_type = ServerName(text), next((type for type in self.key_types if self._mark(type) == mark), None)
        if key_type is None or not self._allows(name):
            return None
        return Subject((name,), key_type=key_type, mark=mark)

    def id_for(self, name: ServerName, key_type: str) -> ServerName:
        """Return the id by which to look up ``name`` with a key of one of ``key_types``."""
        return ServerName(name + self._mark(key_type))

    def accepts_key_type(self, subject: Subject, key_type: str) -> bool:
        """Say whether a certificate with such a key may serve ``subject``.

        If only one kind is served, any key will do until the certificate is renewed: clients never relied on another.
        """
        return len(self.key_types) == 1 or kind_of(key_type) == kind_of(subject.key_type)

    def _allows(self, name: ServerName) -> bool:
        if is_address(name):
            return self.ip_certificates
        return not is_wildcard(name) and self.policy.allows(name)

    def _mark(self, key_type: str) -> str:
        return "" if key_type == self.key_types[0] else mark_of(key_type)

    def may_be_validated(self, host: ServerName) -> bool:
        """Say whether a CA may be asked to validate ``host``, for its own certificate or for its wildcard."""
        listed = self._managed_by_name.keys()
        return host in listed or wildcard(host) in listed or self.policy.allows(host)

    def _managed(self, id: ServerName) -> Subject | None:
        found = self._managed_by_name.get(id)
        return found or self._managed_by_name.get(covering_wildcard(id))

    def id_of(self, name: ServerName) -> ServerName:
        """Return the id of the certificate for ``name``; a managed certificate has several names."""
        subject = self.subject(name)
        return subject.id if subject is not None else name


def _for_handshakes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about the TLS handshakes of clients."""
    return {
        "on_demand": choice(given, "acme_on_demand"),
        "handshake_wait": positive(given, "acme_handshake_wait"),
        "fallback": choice(given, "acme_fallback"),
        "unknown_names": choice(given, "acme_unknown_names"),
        "tls_profile": choice(given, "acme_tls_profile"),
        "lazy": given["acme_lazy"],
    }


def _for_cas(given: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the fields about the CAs and our accounts there."""
    return {
        "issuers": parse_entries(given, warnings),
        "email": parse_email(given["acme_email"]),
        "tos_accepted": given["acme_tos_accepted"],
        "account_key": read_secret("acme_account_key", given["acme_account_key"], warnings),
    }


def _for_dns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about DNS challenges."""
    return {
        "dns_zone": parse_zone(given["acme_dns_zone"]),
        "dns_nameservers": tuple(parse_host(host, "acme_dns_nameservers") for host in given["acme_dns_nameservers"]),
        "dns_provider": given["acme_dns_provider"],
        "dns_resolvers": tuple(DnsServer.parse(text, "acme_dns_resolvers") for text in given["acme_dns_resolvers"]),
    }


def _for_renewal(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about when a certificate is renewed, tried again, and removed."""
    return {
        "renew_before": RenewBefore.parse(given["acme_renew_before"]),
        "idle": choice(given, "acme_idle") == "on",
        "keep_expired": parse_keep_expired(given["acme_keep_expired"]),
        "fail_backoff": BackoffSchedule.parse(given["acme_fail_backoff"]),
    }


def _ask_decides(given: Mapping[str, Any]) -> bool:
    """Without ``acme_domains``, ``acme_ask`` allows any name that it accepts; with both, both must agree."""
    return bool(given["acme_ask"]) and not given["acme_domains"]


def _challenges(types: tuple[str, ...]) -> tuple[str, ...]:
    if not types:
        raise ConfigError(f"acme_challenges: it is empty; write one or more of {', '.join(CHALLENGES)}")
    return tuple(dict.fromkeys(require_known("acme_challenges", type, CHALLENGES) for type in types))


def _require_terms(config: Config) -> None:
    if config.active and config.orders and not config.tos_accepted:
        raise ConfigError(
            f"acme_tos_accepted: {' or '.join(i.ca for i in config.issuers)} issues no certificate before you accept "
            "its terms of service; read them, then set acme_tos_accepted=true"
        )


def _require_names(config: Config) -> None:
    if config.upstreams and not config.active:
        raise ConfigError(
            "acme_upstreams: it has no effect while no name may have a certificate; set acme_domains or "
            "acme_certificates first"
        )
