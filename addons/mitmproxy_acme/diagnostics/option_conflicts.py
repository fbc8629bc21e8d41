"""Option conflicts: options that are valid alone, but work against each other or against what people expect.

This module knows our options and the mitmproxy options that matter to us; it must not examine anything else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..config.admin_settings import AdminAddress, require_token_beside
from ..config.config import Config
from ..core.errors import ConfigError
from ..core.proof import DNS_TYPES
from .finding import Finding, fail, passed, warn

type Settings = Mapping[str, Any]

# Seconds. Browsers wait longer, but many other clients wait this long for a connection (curl 300 s, Go's handshake 10
# s).
_CLIENTS_WAIT = 30
_DEFAULT_PORT = 8080
_HTTP_PORT = 80  # where CAs validate http-01 (RFC 8555 section 8.3)
_RAW = ("reverse:tls:", "reverse:tcp:")
_NOT_HTTP = (*_RAW, "reverse:dtls:", "reverse:udp:", "reverse:quic:", "reverse:dns:")


def inspect(config: Config, settings: Settings) -> Iterator[Finding]:
    """Yield findings about the options alone."""
    for warning in config.warnings:
        yield warn(warning)
    if not config.active:
        yield fail("no name may have a certificate; set acme_domains or acme_certificates")
    else:
        names = len({name for subject in config.managed for name in subject.names})
        kinds = (("names", config.policy), ("addresses", config.ip_certificates))
        on_demand = f"{' and '.join(kind for kind, allowed in kinds if allowed) or 'nothing'} on demand"
        yield passed(f"options are valid: {names} managed names, {on_demand}")
    for rule in _RULES:
        if advice := rule(config, settings):
            yield warn(advice)
    for error in (_admin_on_a_proxied_port, _admin_without_token):
        if advice := error(config, settings):
            yield fail(advice)


def _blocked(_: Config, settings: Settings) -> str:
    if is_on(settings, "block_global", default=True):
        return "block_global is on: a public CA cannot reach the proxy to validate; set block_global=false"
    return ""


def _gone_at_exit(config: Config, _: Settings) -> str:
    if config.orders and config.storage.lower().startswith("memory:"):
        return (
            "acme_storage=memory: is lost when the process ends, so each start orders everything again, until the CA's "
            "rate limits are used up; use file: or another storage"
        )
    return ""


def _nothing_ordered(config: Config, _: Settings) -> str:
    if config.on_demand == "off" and config.policy and not config.managed:
        return (
            "acme_on_demand is off and acme_certificates is empty, so only the command issue orders anything; "
            "list the names in acme_certificates, or set acme_on_demand=wait"
        )
    return ""


def _no_challenge_for_addresses(config: Config, _: Settings) -> str:
    if config.ip_certificates and DNS_TYPES.issuperset(config.challenges):
        return (
            "acme_ip_certificates orders nothing: DNS challenges cannot validate an address; add http-01 or "
            "tls-alpn-01 to acme_challenges"
        )
    return ""


def _first_client_refused(config: Config, _: Settings) -> str:
    if config.on_demand == "background" and config.fallback == "reject":
        return (
            "acme_on_demand=background with acme_fallback=reject closes the first connections for each new name; "
            "set acme_on_demand=wait, or acme_fallback=mitm"
        )
    return ""


def _held_too_long(config: Config, _: Settings) -> str:
    if config.on_demand == "wait" and config.handshake_wait > _CLIENTS_WAIT:
        return (
            f"acme_handshake_wait={config.handshake_wait:.0f} is longer than most clients wait; the order goes on "
            f"without them, so {_CLIENTS_WAIT} is enough"
        )
    return ""


def _no_reverse_mode(config: Config, settings: Settings) -> str:
    modes = _texts(settings, "mode")
    if modes and not any(mode.startswith("reverse:") for mode in modes) and config.active:
        return (
            "mode has no reverse: entry; certificates are ordered on demand, and unknown challenges answered, "
            "in reverse mode only; add one such as reverse:http://127.0.0.1:8000@443"
        )
    return ""


def without_http(config: Config, settings: Settings) -> str:
    """Warn that http-01 cannot be answered if the mode on port 80, or every mode, passes bytes on unread."""
    modes = _texts(settings, "mode")
    raw = [mode for mode in modes if mode.lower().startswith(_RAW)]
    on_port_80 = [mode for mode in raw if _port_of(mode, settings) == _HTTP_PORT]
    if "http-01" not in config.challenges or not config.active or not (on_port_80 or raw == modes != []):
        return ""
    return (
        f"http-01 cannot be answered in mode {(on_port_80 or raw)[0]}, which does not read HTTP; add a mode such as "
        "reverse:http://127.0.0.1:8000@80, or use tls-alpn-01 in acme_challenges"
    )


def without_routing(config: Config, settings: Settings) -> str:
    """Warn of modes that do not send requests where ``acme_upstreams`` says."""
    modes = [mode.lower() for mode in _texts(settings, "mode")]
    if not config.upstreams or not modes:
        return ""
    if not any(mode.startswith("reverse:") and not mode.startswith(_NOT_HTTP) for mode in modes):
        return (
            f"acme_upstreams has no effect in mode {modes[0]}; requests are routed in the reverse modes http, https "
            "and http3: add one such as reverse:http://127.0.0.1:8000@443"
        )
    if raw := next((mode for mode in modes if mode.startswith(_RAW)), ""):
        return (
            f"acme_upstreams has no effect in mode {raw}, which does not read HTTP; use reverse:http: or "
            "reverse:https: there"
        )
    return ""


def _passthrough_without_reverse(config: Config, settings: Settings) -> str:
    modes = _texts(settings, "mode")
    if config.challenge_passthrough and modes and not any(mode.startswith("reverse:") for mode in modes):
        return "acme_challenge_passthrough works in reverse mode only, and mode has no reverse: entry; leave it out"
    return ""


def _bypassed(_: Config, settings: Settings) -> str:
    for option in ("ignore_hosts", "allow_hosts"):
        if _texts(settings, option):
            return (
                f"{option} is set: connections that it passes on untouched get no certificate from here; leave it out"
            )
    return ""


def _onboarding(_: Config, settings: Settings) -> str:
    if not is_on(settings, "block_global", default=True) and is_on(settings, "onboarding", default=True):
        return "onboarding is on, and serves mitm.it on a public edge; set onboarding=false"
    return ""


def _eager(config: Config, settings: Settings) -> str:
    if not config.lazy and not config.upstreams and settings.get("connection_strategy", "eager") == "eager":
        return (
            "acme_lazy=false with connection_strategy=eager: if the upstream is down, challenges and handshakes fail "
            "too; set connection_strategy=lazy, or leave acme_lazy on"
        )
    return ""


def _secret_without_webhook(config: Config, _: Settings) -> str:
    if config.webhook_key and not config.webhook:
        return "acme_webhook_secret signs nothing without acme_webhook; set both, or neither"
    return ""


_RULES: tuple[Callable[[Config, Settings], str], ...] = (
    _blocked,
    _gone_at_exit,
    _nothing_ordered,
    _no_challenge_for_addresses,
    _first_client_refused,
    _held_too_long,
    _no_reverse_mode,
    without_http,
    without_routing,
    _passthrough_without_reverse,
    _bypassed,
    _onboarding,
    _eager,
    _secret_without_webhook,
)


def _admin_on_a_proxied_port(config: Config, settings: Settings) -> str:
    if not isinstance(config.admin, AdminAddress):
        return ""
    port = config.admin.port
    shared = next((mode for mode in _texts(settings, "mode") if _port_of(mode, settings) == port), None)
    if shared is None:
        return ""
    return f"acme_admin_listen={config.admin} has the port of mode {shared}; give the admin API a port of its own"


def _admin_without_token(config: Config, settings: Settings) -> str:
    try:
        require_token_beside(_texts(settings, "mode"), config.admin, config.admin_token)
    except ConfigError as error:
        return str(error)
    return ""


def _port_of(mode: str, settings: Settings) -> int:
    """Return the TCP port of a mode's specification: after the last @, else listen_port, else mitmproxy's default."""
    _, at, listen = mode.rpartition("@")
    text = listen.rpartition(":")[2] if at else str(settings.get("listen_port") or _DEFAULT_PORT)
    return int(text) if text.isdecimal() else 0


def is_on(settings: Settings, option: str, *, default: bool) -> bool:
    """Say whether a switch of mitmproxy is on: true in config.yaml, or text with --set."""
    return str(settings.get(option, default)).lower() != "false"


def _texts(settings: Settings, option: str) -> list[str]:
    """Return the entries of a mitmproxy option: a list in config.yaml, one text with --set."""
    value = settings.get(option)
    entries = value if isinstance(value, list) else [value]
    return [str(entry) for entry in entries if entry]
