"""Check the upstreams of ``acme_upstreams``: whether they accept connections, and whether their hosts can be served.

This module knows the entries and what the options allow; it must not know modes, or send requests.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from ..config.config import Config
from ..config.upstreams import Upstream, UpstreamRule
from ..core.host_policy import HostPattern, Kind
from ..core.names import ServerName, is_address, is_wildcard
from .finding import Finding, passed, warn
from .option_conflicts import is_on
from .ports import CONNECT_WITHIN

_LABEL = "acme-check"  # stands for any label
_SHOWN = 5  # so many hosts are named in one line


def inspect(config: Config, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings; blocks for seconds if an upstream does not answer. Sends no request.

    ``settings`` are mitmproxy's, by which it verifies certificates of upstreams.
    """
    if advice := without_certificate(config):
        yield warn(advice)
    try:
        trust = None if is_on(settings, "ssl_insecure", default=False) else _trust(settings)
    except OSError as error:
        trust = None
        yield warn(
            "acme_upstreams: the CAs of ssl_verify_upstream_trusted_ca or ssl_verify_upstream_trusted_confdir cannot "
            f"be read ({error.strerror or error}), so all https upstreams get 502; correct the path"
        )
    for upstream in config.upstreams.upstreams:
        yield _connect(upstream, trust if upstream.tls else None)


def without_certificate(config: Config) -> str:
    """Return a sentence about the entries for hosts that may have no certificate; empty if there are none."""
    unserved = [rule.hosts for rule in config.upstreams.rules if not _may_be_served(rule, config)]
    if not unserved:
        return ""
    shown = ", ".join(map(str, unserved[:_SHOWN])) + (", …" if len(unserved) > _SHOWN else "")
    is_for_addresses = all(hosts.kind is Kind.EXACT and is_address(hosts.name) for hosts in unserved)
    option = "acme_certificates" if is_for_addresses else "acme_domains"
    return f"acme_upstreams: no option allows a certificate for {shown}, so browsers cannot open it; add it to {option}"


def _trust(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """Return a context that trusts the CAs that mitmproxy trusts. Raises ``OSError``."""
    file, folder = (settings.get(f"ssl_verify_upstream_trusted_{kind}") or None for kind in ("ca", "confdir"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file or (DEFAULT_CA_BUNDLE_PATH if folder is None else None), folder)
    return context


def _connect(upstream: Upstream, trust: ssl.SSLContext | None) -> Finding:
    """Connect, and with ``trust`` do a TLS handshake."""
    shown = f"acme_upstreams: {upstream}"
    try:
        with socket.create_connection(upstream.address, CONNECT_WITHIN) as plain:
            if trust is not None:
                trust.wrap_socket(plain, server_hostname=upstream.host).close()
    except ssl.SSLCertVerificationError as error:
        return warn(
            f"{shown} has a certificate that is not trusted for {upstream.host} ({error.verify_message}), so its hosts "
            "get 502; correct the host in the URL, or set ssl_verify_upstream_trusted_ca to the file of its CA"
        )
    except ssl.SSLError as error:
        return warn(f"{shown} completes no TLS handshake ({error.reason}); write http:// if it speaks plain HTTP")
    except TimeoutError:
        return warn(f"{shown} does not answer, so its hosts get 502; check its address and firewall")
    except socket.gaierror:
        return warn(f"{shown} has a host without an address, so its hosts get 502; correct its name")
    except OSError as error:
        return warn(f"{shown} cannot be reached ({error.strerror or error}), so its hosts get 502; start it")
    return passed(f"{shown} accepts connections" + (", and its certificate is trusted" if trust else ""))


def _may_be_served(rule: UpstreamRule, config: Config) -> bool:
    """Say whether any host of an entry may have a certificate; for an expression beside wildcards, assume so."""
    hosts = rule.hosts
    if hosts.kind is not Kind.REGEXP and config.subject(_example(hosts)) is not None:
        return True
    if hosts.kind is Kind.REGEXP and _allows_unlisted_names(config):
        return True
    return any(_matches(hosts, name) for name in _allowed_examples(config))


def _example(hosts: HostPattern) -> ServerName:
    return ServerName(hosts.name if hosts.kind is Kind.EXACT else f"{_LABEL}.{hosts.name}")


def _allowed_examples(config: Config) -> Iterator[ServerName]:
    """Yield a name for each that the options list: itself, and one below a wildcard."""
    for subject in config.managed:
        yield from (ServerName(name.replace("*", _LABEL)) for name in subject.names)
    yield from map(ServerName, config.policy.exact)
    yield from (ServerName(f"{_LABEL}.{base}") for base in config.policy.one_label | config.policy.any_depth)


def _allows_unlisted_names(config: Config) -> bool:
    policy = config.policy
    managed = (name for subject in config.managed for name in subject.names)
    return policy.is_open or bool(policy.one_label or policy.any_depth) or any(map(is_wildcard, managed))


def _matches(hosts: HostPattern, name: ServerName) -> bool:
    match hosts.kind:
        case Kind.EXACT:
            return name == hosts.name
        case Kind.ONE_LABEL:
            return name.partition(".")[2] == hosts.name
        case Kind.ANY_DEPTH:
            return name.endswith(f".{hosts.name}")
        case Kind.REGEXP:
            return hosts.regexp is not None and hosts.regexp.matches(name)
